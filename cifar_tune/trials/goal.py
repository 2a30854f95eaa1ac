"""What a search asks for besides accuracy: a cost to make small, and the most that a trial may cost."""

from typing import Literal

from cifar_tune.recipe.options import Options, Positive
from cifar_tune.wording import format_cost

CostName = Literal["num_parameters", "num_macs", "seconds"]  # the report's columns
NETWORK_COSTS: tuple[CostName, ...] = ("num_parameters", "num_macs")  # known before anything is trained


class Limits(Options):
    """The most that a trial may cost: parameters, multiply-adds of one image, seconds of training; None is any."""

    num_parameters: Positive | None = None
    num_macs: Positive | None = None
    seconds: Positive | None = None

    @property
    def given(self) -> dict[CostName, float]:
        """Those that there are."""
        limits: dict[CostName, float | None] = {
            "num_parameters": self.num_parameters,
            "num_macs": self.num_macs,
            "seconds": self.seconds,
        }
        return {name: limit for name, limit in limits.items() if limit is not None}

    @property
    def of_network(self) -> dict[CostName, float]:
        """Those of what a recipe costs before it is trained."""
        return {name: limit for name, limit in self.given.items() if name in NETWORK_COSTS}

    def __str__(self) -> str:
        return " and ".join(format_cost(name, limit) for name, limit in self.given.items())


class Goal(Options):
    """Accuracy alone, unless a cost is to be small too; within the limits."""

    minimize: CostName | None = None
    limits: Limits = Limits()


ACCURACY_ALONE = Goal()
