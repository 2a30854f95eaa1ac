"""SMAC3's multi-fidelity facade: Hyperband, whose configurations a random forest chooses, with conditions."""

import tempfile
from pathlib import Path
from typing import Any

from ConfigSpace import Configuration
from smac import MultiFidelityFacade, Scenario
from smac.initial_design import RandomInitialDesign
from smac.runhistory import TrialValue

from cifar_tune.search.space import Space
from peers.config_spaces import baseline_configuration, config_space
from peers.successive_halving import Job, SuccessiveHalving, whole_epochs
from peers.values import Values


class BaselineFirst(RandomInitialDesign):  # type: ignore[misc]
    """The facade's random configurations after the additional one, which SMAC3 would add at their end."""

    def select_configurations(self) -> list[Configuration]:
        return [*self._additional_configs, *super()._select_configurations()]


class MultiFidelitySmac(SuccessiveHalving):
    """`MultiFidelityFacade` by ask and tell; its default of 100 trials only sets the initial design, to 25."""

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__()
        self._values = Values(space)
        self._folder = tempfile.TemporaryDirectory()
        configurations = config_space(self._values, seed)
        scenario = Scenario(
            configurations,
            deterministic=True,
            min_budget=1,
            max_budget=self._values.epochs,
            seed=seed,
            output_directory=Path(self._folder.name),
        )
        design = MultiFidelityFacade.get_initial_design(scenario)
        baseline = baseline_configuration(self._values, configurations)
        self._smac = MultiFidelityFacade(
            scenario,
            initial_design=BaselineFirst(scenario, n_configs=design._n_configs, additional_configs=[baseline]),
            overwrite=True,
            logging_level=40,
        )

    def ask(self) -> Job:
        trial = self._smac.ask()
        return Job(trial.config, self._values.decode(dict(trial.config)), whole_epochs(trial.budget), trial)

    def tell(self, job: Job, accuracy: float) -> None:
        ticket: Any = job.ticket
        self._smac.tell(ticket, TrialValue(cost=1 - accuracy), save=False)
