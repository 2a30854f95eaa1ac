"""The learning-rate schedules: pure functions of the position in a phase, so that they plot and test without training.

A new schedule is a class here and its name in `Schedule`. `factor` is what the optimizer's `lr` is multiplied with
at a position; a schedule that also moves the momentum (SGD) or beta1 (Adam, AdamW) overrides `momentum`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cifar_tune.recipe.options import Count, Options, Positive, Share

PLATEAU_THRESHOLD = 1e-4  # relative; a loss that falls by less has not fallen. Torch's default


@dataclass(frozen=True)
class Position:
    """Optimizer step `step` (from 0) of a phase of `num_steps`, of which each epoch has `steps_per_epoch`.

    A run from scratch is one phase; `first_epoch` epochs of the run came before it. `val_losses` are those of the
    phase's epochs so far.
    """

    step: int
    num_steps: int
    steps_per_epoch: int
    first_epoch: int = 0
    val_losses: Sequence[float] = ()


class BaseSchedule(Options):
    """What the training loop asks of every schedule, and a search's scheduler.

    `rungs` are the fractions of a schedule after which its runs may be judged; only runs of schedules with the same
    rungs are compared.
    """

    # The rate is still, or again and again, what it is at the end: early scores are of the kind that the last one is.
    rungs: ClassVar[tuple[float, ...]] = (0.25, 0.5)

    def factor(self, at: Position) -> float:
        """The share of the optimizer's `lr` that step `at.step` uses."""
        raise NotImplementedError

    def momentum(self, at: Position) -> float | None:
        """The momentum (or beta1) of that step; None leaves the optimizer's own."""
        return None


class Constant(BaseSchedule):
    """The same rate throughout."""

    name: Literal["constant"] = "constant"

    def factor(self, at: Position) -> float:
        """1 everywhere."""
        return 1.0


class Step(BaseSchedule):
    """Times `gamma` after every `every` epochs, counted from the start of the run (document 5: 0.5 and 20)."""

    name: Literal["step"] = "step"
    every: Count = 20
    gamma: Share = 0.5

    def factor(self, at: Position) -> float:
        """`gamma` to the power of the periods that are over."""
        return self.gamma ** ((at.first_epoch + at.step // at.steps_per_epoch) // self.every)


class Cosine(BaseSchedule):
    """Half a cosine from the full rate towards 0, after a linear rise over the first `warmup` of the run."""

    name: Literal["cosine"] = "cosine"
    # The rate is still two thirds of the full one at the first, so scores there say less, and a fifth at the second.
    rungs: ClassVar[tuple[float, ...]] = (0.4, 0.7)
    warmup: Share = 0.0

    def factor(self, at: Position) -> float:
        """Full where the rise ends; the step after the last one would have 0."""
        rise = self.warmup * at.num_steps
        if at.step < rise:
            return (at.step + 1) / (rise + 1)
        return _cosine(1.0, 0.0, (at.step - rise) / (at.num_steps - rise))


class OneCycle(BaseSchedule):
    """One rise to the full rate and one fall (Smith, arXiv:1708.07120), from 1/25 and to 1/250,000 of it.

    `linear-exponential` is document 3's shape: up in a line over the first half, down exponentially over the second.
    `torch` is `torch.optim.lr_scheduler.OneCycleLR` with its defaults: cosines, the peak at 30 % of the run, and
    momentum moving against the rate.
    """

    name: Literal["one-cycle"] = "one-cycle"
    # Not before the rate has risen, which takes up to half of the run and hides what a run will come to.
    rungs: ClassVar[tuple[float, ...]] = (0.5, 0.75)
    shape: Literal["linear-exponential", "torch"] = "linear-exponential"
    initial_div: Positive = 25.0
    final_div: Positive = 1e4

    def factor(self, at: Position) -> float:
        """Full where the rise ends, which may lie between two steps; lowest at the last step."""
        first, last = 1 / self.initial_div, 1 / self.initial_div / self.final_div
        rising, share = self._phase(at)
        if self.shape == "torch":
            return _cosine(first, 1.0, share) if rising else _cosine(1.0, last, share)
        return first + (1.0 - first) * share if rising else last**share

    def momentum(self, at: Position) -> float | None:
        """Torch's shape goes from 0.95 to 0.85 and back; the document's leaves it alone."""
        if self.shape != "torch":
            return None
        rising, share = self._phase(at)
        return _cosine(0.95, 0.85, share) if rising else _cosine(0.85, 0.95, share)

    def _phase(self, at: Position) -> tuple[bool, float]:
        """Whether the rate rises, and the share of that phase that is over; torch's count of steps for both shapes."""
        peak = (0.3 if self.shape == "torch" else 0.5) * at.num_steps - 1
        if at.step <= peak:
            return True, at.step / peak if peak > 0 else 1.0
        return False, (at.step - peak) / (at.num_steps - 1 - peak)


class Plateau(BaseSchedule):
    """Times `reduction` whenever the validation loss has not fallen for more than `patience` epochs (document 4).

    The state machine of torch's ReduceLROnPlateau with its defaults, without its smallest step (1e-8), replayed from
    the losses so far: a plan of it knows only the first rate.
    """

    name: Literal["plateau"] = "plateau"
    reduction: Share = 0.1
    patience: int = Field(3, ge=0)

    def factor(self, at: Position) -> float:
        """What the losses so far have made of the rate."""
        factor, lowest, num_bad = 1.0, math.inf, 0
        for loss in at.val_losses:
            falls = loss < lowest * (1 - PLATEAU_THRESHOLD)
            lowest, num_bad = (loss, 0) if falls else (lowest, num_bad + 1)
            if num_bad > self.patience:
                factor, num_bad = factor * self.reduction, 0
        return factor


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


Schedule = Annotated[OneCycle | Step | Cosine | Constant | Plateau, Field(discriminator="name")]


def learning_rates(
    schedule: BaseSchedule, lr: float, *, epochs: int, steps_per_epoch: int, first_epoch: int = 0
) -> list[float]:
    """The rate of every optimizer step of a phase, in order; Plateau's as if the loss fell in every epoch."""
    num_steps = epochs * steps_per_epoch
    positions = (Position(step, num_steps, steps_per_epoch, first_epoch) for step in range(num_steps))
    return [lr * schedule.factor(at) for at in positions]
