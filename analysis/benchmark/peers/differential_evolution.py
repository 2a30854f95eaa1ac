"""DEHB: Hyperband, whose configurations differential evolution chooses, with conditions.

It cannot be given a configuration: its first suggestion is a mutant of random ones, and results before the first
suggestion are refused. So its first job is turned into the baseline's, as DEHB itself does when it replays a history.
"""

import tempfile

from dehb import DEHB

from cifar_tune.search.space import Space
from peers.config_spaces import baseline_configuration, config_space
from peers.successive_halving import Job, SuccessiveHalving, whole_epochs
from peers.values import Values


class Dehb(SuccessiveHalving):
    """`DEHB` by ask and tell."""

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__()
        self._values = Values(space)
        self._folder = tempfile.TemporaryDirectory()
        self._configurations = config_space(self._values, seed)
        self._dehb = DEHB(
            cs=self._configurations,
            min_fidelity=1,
            max_fidelity=self._values.epochs,
            seed=seed,
            n_workers=1,  # of DEHB's own, which ask and tell do not use
            output_path=self._folder.name,
            save_freq="end",
        )
        self._is_first = True

    def ask(self) -> Job:
        ticket = self._dehb.ask()
        if self._is_first:
            self._is_first = False
            ticket["config"] = baseline_configuration(self._values, self._configurations)
            vector = self._dehb.configspace_to_vector(ticket["config"])
            self._dehb.config_repository.configs[ticket["config_id"]].config = vector
        params = self._values.decode(dict(ticket["config"]))
        return Job(int(ticket["config_id"]), params, whole_epochs(ticket["fidelity"]), ticket)

    def tell(self, job: Job, accuracy: float) -> None:
        self._dehb.tell(job.ticket, {"fitness": 1 - accuracy, "cost": job.epochs})
