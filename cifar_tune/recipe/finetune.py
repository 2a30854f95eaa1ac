"""Fine-tuning policies: which part of the network is trained when, and from which weights it starts.

Each policy is a class with its own options that divides a run into phases. training/loop.py follows them.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field

from cifar_tune.recipe.options import Count, Options, Positive

Views = Annotated[int, Field(ge=1, le=16)]  # ResNet-50's features of 16 views of all of CIFAR take 6 GB


@dataclass(frozen=True)
class Phase:
    """A part of a run that has an optimizer of its own, with `lr` as the highest learning rate.

    The backbone is everything before the head. `frozen`: it is in evaluation mode and has no gradients.
    `frozen_norms`: only its batch norms are in evaluation mode.
    """

    first_epoch: int  # the epochs of the phases before it
    epochs: int
    lr: float
    frozen: bool = False
    frozen_norms: bool = False


class BaseFinetune(Options):
    """What every policy has."""

    def phases(self, epochs: int, lr: float) -> tuple[Phase, ...]:
        """The phases of a run of `epochs`; `lr` is that of the recipe's optimizer."""
        return (Phase(0, epochs, lr),)

    def num_views(self, epochs: int) -> int | None:
        """The number of fixed views of each training image in a run's frozen epochs; None where views are not fixed."""
        return None

    def rescaled(self, share: float, epochs: int) -> Self:
        """The policy for a run that now has `epochs`, `share` times as many as before."""
        return self


class Scratch(BaseFinetune):
    """Everything is trained, from random weights."""

    name: Literal["scratch"] = "scratch"


class Full(BaseFinetune):
    """Everything is trained, from the model's weights."""

    name: Literal["full"] = "full"


class Frozen(BaseFinetune):
    """The head alone is trained, on the features of a backbone that keeps its weights.

    With `views`, each image has that many augmented views, which are drawn once, and each epoch takes the next one.
    Without, every epoch draws new augmentations.
    """

    name: Literal["frozen"] = "frozen"
    views: Views | None = None

    def phases(self, epochs: int, lr: float) -> tuple[Phase, ...]:
        """One phase, with the backbone frozen."""
        return (Phase(0, epochs, lr, frozen=True),)

    def num_views(self, epochs: int) -> int | None:
        """`views`, but no more than there are epochs."""
        return self.views and min(self.views, epochs)


class TwoPhase(BaseFinetune):
    """The head alone is trained for `head_epochs`, then everything with `lr` as the highest learning rate.

    The ResNet50 two-phase project trains 10 epochs each. In the second phase the backbone's batch norms keep their
    statistics, unless `batch_norm` is `train`. `views` are those of the first phase, as in Frozen.
    """

    name: Literal["two-phase"] = "two-phase"
    head_epochs: Count = 1
    lr: Positive = 1e-5
    batch_norm: Literal["eval", "train"] = "eval"
    views: Views | None = None

    def phases(self, epochs: int, lr: float) -> tuple[Phase, ...]:
        """The phase of the head, then that of the whole network."""
        return (
            Phase(0, self.head_epochs, lr, frozen=True),
            Phase(self.head_epochs, epochs - self.head_epochs, self.lr, frozen_norms=self.batch_norm == "eval"),
        )

    def num_views(self, epochs: int) -> int | None:
        """`views`, but no more than there are frozen epochs."""
        return self.views and min(self.views, self.head_epochs)

    def rescaled(self, share: float, epochs: int) -> Self:
        """The head's phase keeps its share of the epochs, and each phase has at least one."""
        head_epochs = max(1, min(round(self.head_epochs * share), epochs - 1))
        return self.model_copy(update={"head_epochs": head_epochs})


Finetune = Annotated[Scratch | Frozen | TwoPhase | Full, Field(discriminator="name")]
