"""A trial of a search: its state, its recipe, its learning curve and its facts.

Trials are read from the user attributes of Optuna's trials; search/record.py writes these.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from cifar_tune.data.images import IMAGE_SIZE, OWN
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.training.scores import SCORE_ERROR, ScoreName, chance, metric_name
from cifar_tune.trials.facts import NUM_TRAIN_IMAGES, NUM_VAL_IMAGES, REPLAYS
from cifar_tune.trials.goal import ACCURACY_ALONE, CostName, Goal

State = Literal[
    "running", "paused", "completed", "stopped early", "pruned", "diverged", "out of memory", "failed", "interrupted"
]

RERUN_OF, SEED = "trial", "seed"  # the values that a rerun samples: the trial whose recipe it repeats, and a seed

EPOCH, WHOLE_CURVE = "epoch", "curve"  # user attributes of Optuna's trials: `epoch 1`, `epoch 2`, ...

COMPLETE_STATES: tuple[State, ...] = ("completed", "stopped early")

OPTUNA_STATES: dict[State, TrialState] = {
    "completed": TrialState.COMPLETE,
    "stopped early": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.COMPLETE,
    "out of memory": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Trial:
    """One trial of a search.

    `params` are the sampled values by name and `ranges` their distributions, `curve` has the EpochMetrics of each epoch
    as a mapping, and `facts` are named in facts.py.
    """

    search: str
    number: int
    state: State
    recipe: Recipe
    params: Mapping[str, Any]
    is_baseline: bool
    curve: Sequence[Mapping[str, float]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    mlflow_run_id: str | None = None
    goal: Goal = ACCURACY_ALONE
    ranges: Mapping[str, BaseDistribution] = field(default_factory=dict)
    data: str | None = None  # hex digest of the images; None before the search has seen them

    @property
    def dataset(self) -> str:
        """The data set as reports name it: scores can be compared where it is the same. Own images have no name."""
        name = self.recipe.dataset
        digest = f" {self.data[:6]}" if self.data and name in OWN else ""
        size = "" if self.recipe.image_size == IMAGE_SIZE else f" at {self.recipe.image_size} px"
        return f"{name}{digest}{size}"

    @property
    def is_rerun(self) -> bool:
        """Whether the trial repeats another one with a different seed."""
        return RERUN_OF in self.params

    @property
    def has_own_score(self) -> bool:
        """Whether the scores are the trial's own, and not those of a run that it replays."""
        return REPLAYS not in self.facts

    @property
    def label(self) -> str:
        """The trial's name in reports, like `trial 0 (baseline)`."""
        if self.is_rerun:
            return f"trial {self.params[RERUN_OF]} with seed {self.params[SEED]}"
        return f"trial {self.number}" + (" (baseline)" if self.is_baseline else "")

    @property
    def num_train_images(self) -> int | None:
        """How many images it trains on; None where neither its worker nor its recipe says so."""
        return self.facts.get(NUM_TRAIN_IMAGES) or self.recipe.num_train_images

    @property
    def num_val_images(self) -> int | None:
        """How many images it is validated on; None as above."""
        return self.facts.get(NUM_VAL_IMAGES) or self.recipe.num_val_images

    @property
    def epochs(self) -> int:
        """The number of epochs that were trained."""
        return len(self.curve)

    @property
    def seconds(self) -> float:
        """The seconds of training and validation over all epochs."""
        return sum(epoch["seconds"] for epoch in self.curve)

    @property
    def scores(self) -> list[float]:
        """The score after each epoch, on the validation images: the one that the search is for."""
        name = metric_name(self.goal.score)
        return [epoch[name] for epoch in self.curve]

    @property
    def score(self) -> float | None:
        """The score of the epoch that counts, chance if the run broke down, None if there is none."""
        return self._result(self.goal.score)

    @property
    def accuracy(self) -> float | None:
        """As `score`, the accuracy of the same epoch: the score itself, unless the search is for another one."""
        return self._result("accuracy")

    def _result(self, score: ScoreName) -> float | None:
        if self.state in ("diverged", "out of memory"):
            return chance(score, self.recipe.num_outputs)
        if not self.curve or self.state == "failed":
            return None
        return self.curve[self._counted(self.scores)][metric_name(score)]

    @property
    def score_error(self) -> float | None:
        """The standard error of the score from the sampling of images; None where it is not known."""
        if not self.is_complete or not self.curve:
            return None
        if self.goal.score != "accuracy":
            return self.curve[self._counted(self.scores)][SCORE_ERROR]
        if self.num_val_images is None or self.score is None:
            return None
        return math.sqrt(self.score * (1 - self.score) / self.num_val_images)

    def score_after(self, epoch: int) -> float:
        """The score that the run had after this epoch, counted from 1."""
        scores = self.scores[:epoch]
        return scores[self._counted(scores)]

    def _counted(self, scores: Sequence[float]) -> int:
        return self.recipe.early_stopping.counted(scores)

    @property
    def is_complete(self) -> bool:
        """Whether the trial was trained to its end: its last epoch, or where early stopping ended it."""
        return self.state in COMPLETE_STATES

    @property
    def is_over(self) -> bool:
        """Whether the trial is in a final state."""
        return self.state in OPTUNA_STATES

    def cost(self, name: CostName) -> float | None:
        """The cost so far; None if it is not known."""
        return self.seconds if name == "seconds" else self.facts.get(name)

    def cost_to_end(self, name: CostName) -> float | None:
        """The cost if the trial were trained to its end, estimated from the mean epoch if it was stopped."""
        if name != "seconds" or self.is_complete:
            return self.cost(name)
        return self.seconds / self.epochs * self.recipe.epochs if self.curve else None

    @property
    def over_limits(self) -> list[CostName]:
        """The costs in which the trial exceeds its search's limits."""
        costs = {name: self.cost(name) for name in self.goal.limits.by_cost}
        return [name for name, limit in self.goal.limits.by_cost.items() if (costs[name] or 0) > limit]

    @property
    def counts(self) -> bool:
        """Whether the trial can be the best one: trained to its end, and within the limits."""
        return self.is_complete and not self.over_limits


def as_trial(
    search: str, trial: FrozenTrial | optuna.Trial, is_baseline: bool, goal: Goal, data: str | None = None
) -> Trial:
    """The trial that an Optuna trial's user attributes describe; `data` is the digest of the search's images."""
    attributes = trial.user_attrs
    return Trial(
        search=search,
        number=trial.number,
        state=attributes["state"],
        recipe=Recipe.model_validate(attributes["recipe"]),
        params=trial.params,
        is_baseline=is_baseline,
        curve=curve_of(attributes),
        facts=attributes.get("facts", {}),
        error=attributes.get("error"),
        mlflow_run_id=attributes.get("mlflow_run_id"),
        goal=goal,
        ranges=trial.distributions,
        data=data,
    )


def curve_of(attributes: Mapping[str, Any]) -> Sequence[Mapping[str, float]]:
    """The learning curve in the user attributes of an Optuna trial.

    Each epoch has an attribute of its own, so that none is written twice. Up to version 0.1 one attribute had them all.
    """
    curve = list(attributes.get(WHOLE_CURVE, ()))
    while metrics := attributes.get(f"{EPOCH} {len(curve) + 1}"):
        curve.append(metrics)
    return curve or ()


def is_of_curve(attribute: str) -> bool:
    """Whether a user attribute of an Optuna trial holds epochs of its learning curve."""
    return attribute == WHOLE_CURVE or attribute.startswith(f"{EPOCH} ")


def changed_epochs(attributes: Mapping[str, Any], epoch: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """The user attributes to set when a trial has trained an epoch; later epochs, of before an interruption, end."""
    following = f"{EPOCH} {epoch + 1}"
    end = {following: None} if following in attributes else {}
    whole = attributes.get(WHOLE_CURVE, ())
    if epoch <= len(whole):
        return {WHOLE_CURVE: [*whole[: epoch - 1], metrics], **end}
    return {f"{EPOCH} {epoch}": metrics, **end}
