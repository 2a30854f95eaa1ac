"""Early stopping: when a run ends before its last planned epoch, and which epoch's network is kept.

Each class is a pure function of the validation scores so far. A search's own stopping of trials is no part of it.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from cifar_tune.recipe.options import Count, Options


class NoEarlyStopping(Options):
    """Every planned epoch is trained, and the last one counts."""

    name: Literal["none"] = "none"

    def stops(self, scores: Sequence[float]) -> bool:
        """Never stop."""
        return False

    def counted(self, scores: Sequence[float]) -> int:
        """The last epoch."""
        return len(scores) - 1


class Patience(Options):
    """The run ends after `patience` epochs without a better score on the validation images.

    The best epoch's network is restored, also where the run ends with its last planned epoch.
    """

    name: Literal["patience"] = "patience"
    patience: Count = 7

    def stops(self, scores: Sequence[float]) -> bool:
        """Whether the run is over after the epochs with these validation scores."""
        return len(scores) - 1 - self.counted(scores) >= self.patience

    def counted(self, scores: Sequence[float]) -> int:
        """The index of the epoch whose network and score count: the best, the first of equals."""
        return max(range(len(scores)), key=lambda i: (scores[i], -i))


EarlyStopping = Annotated[NoEarlyStopping | Patience, Field(discriminator="name")]
