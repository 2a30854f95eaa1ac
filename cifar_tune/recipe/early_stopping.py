"""Early stopping: when a run ends before its last planned epoch, and which epoch's network is kept.

Each class is a pure function of the validation accuracies so far. A search's own stopping of trials is no part of it.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from cifar_tune.recipe.options import Count, Options


class NoEarlyStopping(Options):
    """Every planned epoch is trained, and the last one counts."""

    name: Literal["none"] = "none"

    def stops(self, accuracies: Sequence[float]) -> bool:
        """Never stop."""
        return False

    def counted(self, accuracies: Sequence[float]) -> int:
        """The last epoch."""
        return len(accuracies) - 1


class Patience(Options):
    """The run ends after `patience` epochs without a better validation accuracy.

    The best epoch's network is restored, also where the run ends with its last planned epoch.
    """

    name: Literal["patience"] = "patience"
    patience: Count = 7

    def stops(self, accuracies: Sequence[float]) -> bool:
        """Whether the run is over after the epochs with these validation accuracies."""
        return len(accuracies) - 1 - self.counted(accuracies) >= self.patience

    def counted(self, accuracies: Sequence[float]) -> int:
        """The index of the epoch whose network and score count: the best, the first of equals."""
        return max(range(len(accuracies)), key=lambda i: (accuracies[i], -i))


EarlyStopping = Annotated[NoEarlyStopping | Patience, Field(discriminator="name")]
