"""What is trained when: from scratch, the head alone, the head and then everything, or everything at once.

Each policy is a class with its own options that divides a run into phases; training.py follows them.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field

from cifar_tune.recipe.options import Count, Options, Positive

Views = Annotated[int, Field(ge=1, le=16)]  # of ResNet-50's features on all of CIFAR, 16 take 6 GB


@dataclass(frozen=True)
class Phase:
    """A stretch of a run with an optimizer of its own, whose highest rate is `lr`.

    `frozen`: the backbone is in eval mode and gets no gradients. `frozen_norms`: its batch norms alone are in eval
    mode.
    """

    first_epoch: int  # epochs that the phases before it took
    epochs: int
    lr: float
    frozen: bool = False
    frozen_norms: bool = False


class BaseFinetune(Options):
    """What a Recipe asks of every policy."""

    def phases(self, epochs: int, lr: float) -> tuple[Phase, ...]:
        """The phases of a run of `epochs`; `lr` is the optimizer's."""
        return (Phase(0, epochs, lr),)

    def num_views(self, epochs: int) -> int | None:
        """Fixed views of each training image that the frozen epochs of a run see; None where none are declared."""
        return None

    def rescaled(self, share: float, epochs: int) -> Self:
        """The policy for a run that has become `share` times as long, and now has `epochs`."""
        return self


class Scratch(BaseFinetune):
    """Everything is trained, from random weights."""

    name: Literal["scratch"] = "scratch"


class Full(BaseFinetune):
    """Everything is trained, from the model's weights."""

    name: Literal["full"] = "full"


class Frozen(BaseFinetune):
    """The head alone is trained, on the features of a backbone that stays as it came.

    With `views` every image has so many augmented views, drawn once; each epoch takes the next of them. Without, the
    augmentation is drawn anew in every epoch.
    """

    name: Literal["frozen"] = "frozen"
    views: Views | None = None

    def phases(self, epochs: int, lr: float) -> tuple[Phase, ...]:
        """One, with the backbone frozen."""
        return (Phase(0, epochs, lr, frozen=True),)

    def num_views(self, epochs: int) -> int | None:
        """No more than there are epochs to see them."""
        return self.views and min(self.views, epochs)


class TwoPhase(BaseFinetune):
    """The head alone for `head_epochs`, then everything at the rate `lr` (document 2: 10 epochs each).

    In the second phase the backbone's batch norms keep their statistics, unless `batch_norm` is `train`. `views` are
    the first phase's, as in Frozen.
    """

    name: Literal["two-phase"] = "two-phase"
    head_epochs: Count = 1
    lr: Positive = 1e-5
    batch_norm: Literal["eval", "train"] = "eval"
    views: Views | None = None

    def phases(self, epochs: int, lr: float) -> tuple[Phase, ...]:
        """The head's, then everyone's."""
        return (
            Phase(0, self.head_epochs, lr, frozen=True),
            Phase(self.head_epochs, epochs - self.head_epochs, self.lr, frozen_norms=self.batch_norm == "eval"),
        )

    def num_views(self, epochs: int) -> int | None:
        """No more than there are frozen epochs to see them."""
        return self.views and min(self.views, self.head_epochs)

    def rescaled(self, share: float, epochs: int) -> Self:
        """The head keeps its share, and each phase one epoch at least."""
        head_epochs = max(1, min(round(self.head_epochs * share), epochs - 1))
        return self.model_copy(update={"head_epochs": head_epochs})


Finetune = Annotated[Scratch | Frozen | TwoPhase | Full, Field(discriminator="name")]
