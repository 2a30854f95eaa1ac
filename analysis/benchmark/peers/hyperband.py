"""Optuna's Gaussian process and its CMA-ES, each with Optuna's own Hyperband pruner.

The Gaussian process sees only the names that every recipe has, and Optuna draws the other ones at random. So it does
with choices under CMA-ES, which is not run on conditional spaces at all. Neither learns from pruned trials, nor from
those of another bracket, so by Optuna's defaults the process starts when ten trials of a bracket are complete.
"""

from collections.abc import Mapping
from typing import Any, Literal

import optuna
from optuna.trial import Trial, TrialState

from cifar_tune.search.space import Space


class OptunaHyperband:
    """A study with one of Optuna's samplers, by ask and tell."""

    def __init__(self, space: Space, seed: int, sampler: Literal["gp", "cmaes"]) -> None:
        baseline = space.baselines[0]
        self._space, self._epochs = space, baseline.epochs
        self._study = optuna.create_study(
            study_name=f"seed {seed}",  # Hyperband hashes the name to choose a trial's bracket; the default is random
            direction="maximize",
            sampler=optuna.samplers.GPSampler(seed=seed) if sampler == "gp" else cmaes(seed),
            pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=self._epochs),
        )
        self._study.enqueue_trial(space.baseline_trial(baseline).params)
        self._trials: dict[int, Trial] = {}

    def start(self) -> tuple[int, Mapping[str, Any]]:
        trial = self._study.ask()
        self._space.sample(trial)
        self._trials[trial.number] = trial
        return trial.number, trial.params

    def report(self, number: int, epoch: int, accuracy: float, seconds: float) -> bool:
        """As a loop in an objective does: the last epoch is reported, too."""
        trial = self._trials[number]
        trial.report(accuracy, epoch)
        if epoch == self._epochs:
            self._study.tell(trial, accuracy)
        elif trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            return True
        return False


def cmaes(seed: int) -> optuna.samplers.CmaEsSampler:
    """CMA-ES, without its warning about every choice that it leaves to chance."""
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
