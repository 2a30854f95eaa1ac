"""When a run ends before its last epoch, and which epoch's network it ends with. Pure functions of its accuracies."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from cifar_tune.recipe.options import Count, Options


class NoEarlyStopping(Options):
    """Every planned epoch is trained, and the last one counts."""

    name: Literal["none"] = "none"

    def stops(self, accuracies: Sequence[float]) -> bool:
        """Never."""
        return False

    def counted(self, accuracies: Sequence[float]) -> int:
        """The last epoch."""
        return len(accuracies) - 1


class Patience(Options):
    """Ends after `patience` epochs without a better validation accuracy; the best epoch's network is restored.

    That is done at the last planned epoch too.
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
