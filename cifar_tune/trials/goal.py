"""The goal of a search: the score, a cost to minimize besides, and limits on the costs of a trial."""

from typing import Literal

from cifar_tune.recipe.options import Options, Positive
from cifar_tune.training.scores import ScoreName
from cifar_tune.wording import format_cost

CostName = Literal["num_parameters", "num_macs", "seconds"]  # also the names of the report's columns
NETWORK_COSTS: tuple[CostName, ...] = ("num_parameters", "num_macs")  # known before training


class Limits(Options):
    """The highest costs of a trial: parameters, multiply-adds of one image, seconds of training; None is no limit."""

    num_parameters: Positive | None = None
    num_macs: Positive | None = None
    seconds: Positive | None = None

    @property
    def by_cost(self) -> dict[CostName, float]:
        """The limits that are set, by cost."""
        limits: dict[CostName, float | None] = {
            "num_parameters": self.num_parameters,
            "num_macs": self.num_macs,
            "seconds": self.seconds,
        }
        return {name: limit for name, limit in limits.items() if limit is not None}

    @property
    def of_network(self) -> dict[CostName, float]:
        """The limits on the network's size, which is known before training."""
        return {name: limit for name, limit in self.by_cost.items() if name in NETWORK_COSTS}

    def __str__(self) -> str:
        return " and ".join(format_cost(name, limit) for name, limit in self.by_cost.items())


class Goal(Options):
    """The highest score within the limits, and the lowest cost too where `minimize` names one."""

    score: ScoreName = "accuracy"
    minimize: CostName | None = None
    limits: Limits = Limits()


ACCURACY_ALONE = Goal()
