"""The learning-rate schedules: pure functions of the position in a phase, which can be plotted without training.

A new schedule is a class here and its name in `Schedule`. `factor` multiplies the optimizer's `lr` at a position. A
schedule that also changes the momentum (beta1 of Adam and AdamW) overrides `momentum`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cifar_tune.recipe.options import Count, Options, Positive, Share

PLATEAU_THRESHOLD = 1e-4  # a loss that falls by less, relatively, has not fallen; torch's default


@dataclass(frozen=True)
class Position:
    """Optimizer step `step` (from 0) of a phase with `num_steps` steps, `steps_per_epoch` in each epoch.

    `first_epoch` is the number of the run's epochs before the phase; a run from scratch has one phase. `val_losses` are
    the validation losses of the phase's epochs so far.
    """

    step: int
    num_steps: int
    steps_per_epoch: int
    first_epoch: int = 0
    val_losses: Sequence[float] = ()


class BaseSchedule(Options):
    """What every schedule has for the training loop, and for the scheduler of a search.

    `rungs` are the fractions of a run after which the scheduler can stop it. It compares only runs whose schedules have
    the same rungs.
    """

    # Early in the run the learning rate is already what it is at the end, so early scores predict the last one.
    rungs: ClassVar[tuple[float, ...]] = (0.25, 0.5)

    def factor(self, at: Position) -> float:
        """The share of the optimizer's `lr` that step `at.step` uses."""
        raise NotImplementedError

    def momentum(self, at: Position) -> float | None:
        """The momentum (or beta1) of that step; None for the optimizer's own."""
        return None


class Constant(BaseSchedule):
    """The same learning rate throughout."""

    name: Literal["constant"] = "constant"

    def factor(self, at: Position) -> float:
        """1 everywhere."""
        return 1.0


class Step(BaseSchedule):
    """The learning rate times `gamma` after every `every` epochs, counted from the start of the run.

    The defaults are those of the Mini-ResNet step-decay project.
    """

    name: Literal["step"] = "step"
    every: Count = 20
    gamma: Share = 0.5

    def factor(self, at: Position) -> float:
        """`gamma` to the power of the number of periods that are over."""
        return self.gamma ** ((at.first_epoch + at.step // at.steps_per_epoch) // self.every)


class Cosine(BaseSchedule):
    """Half a cosine from the full learning rate towards 0, after a linear rise over the share `warmup` of the phase."""

    name: Literal["cosine"] = "cosine"
    # The learning rate is two thirds of the full one at the first rung and a fifth at the second. Scores at a higher
    # rate predict less.
    rungs: ClassVar[tuple[float, ...]] = (0.4, 0.7)
    warmup: Share = 0.0

    def factor(self, at: Position) -> float:
        """1 where the rise ends; 0 at the step after the last one."""
        rise = self.warmup * at.num_steps
        if at.step < rise:
            return (at.step + 1) / (rise + 1)
        return _cosine(1.0, 0.0, (at.step - rise) / (at.num_steps - rise))


class Linear(BaseSchedule):
    """A linear fall from the full learning rate to the share `final` of it, after a linear rise over `warmup`.

    The triangle of fast recipes such as airbench; with a `final` above 0 the last steps are not wasted.
    """

    name: Literal["linear"] = "linear"
    rungs: ClassVar[tuple[float, ...]] = (0.4, 0.7)  # as of the cosine, which it is near
    warmup: Share = 0.0
    final: Share = 0.0

    def factor(self, at: Position) -> float:
        """1 where the rise ends; `final` at the step after the last one."""
        rise = self.warmup * at.num_steps
        if at.step < rise:
            return (at.step + 1) / (rise + 1)
        return 1 - (1 - self.final) * (at.step - rise) / (at.num_steps - rise)


class OneCycle(BaseSchedule):
    """One rise to the full learning rate and one fall (Smith, arXiv:1708.07120), from 1/25 and to 1/250,000 of it.

    `linear-exponential` is the shape of the ResNet9 one-cycle project: a linear rise over the first half, an
    exponential fall over the second. `torch` is `torch.optim.lr_scheduler.OneCycleLR` with its defaults: cosines, the
    peak at 30 % of the phase, and a momentum that falls while the learning rate rises.
    """

    name: Literal["one-cycle"] = "one-cycle"
    # Not before the learning rate has risen, which takes up to half of the run: until then scores predict little.
    rungs: ClassVar[tuple[float, ...]] = (0.5, 0.75)
    shape: Literal["linear-exponential", "torch"] = "linear-exponential"
    initial_div: Positive = 25.0
    final_div: Positive = 1e4

    def factor(self, at: Position) -> float:
        """1 where the rise ends, which can be between two steps; lowest at the last step."""
        first, last = 1 / self.initial_div, 1 / self.initial_div / self.final_div
        rising, share = self._phase(at)
        if self.shape == "torch":
            return _cosine(first, 1.0, share) if rising else _cosine(1.0, last, share)
        return first + (1.0 - first) * share if rising else last**share

    def momentum(self, at: Position) -> float | None:
        """From 0.95 to 0.85 and back in torch's shape; the optimizer's own in the other."""
        if self.shape != "torch":
            return None
        rising, share = self._phase(at)
        return _cosine(0.95, 0.85, share) if rising else _cosine(0.85, 0.95, share)

    def _phase(self, at: Position) -> tuple[bool, float]:
        """Whether the rate rises, and how much of the rise or the fall is over. Steps are counted as torch does."""
        peak = (0.3 if self.shape == "torch" else 0.5) * at.num_steps - 1
        if at.step <= peak:
            return True, at.step / peak if peak > 0 else 1.0
        return False, (at.step - peak) / (at.num_steps - 1 - peak)


class Plateau(BaseSchedule):
    """The learning rate times `reduction` whenever the validation loss has not fallen for more than `patience` epochs.

    It is torch's ReduceLROnPlateau with its defaults, but without its smallest step (1e-8), replayed from the losses so
    far. Before training only the first rate is certain. The ResNet50 CIFAR-100 project uses it.
    """

    name: Literal["plateau"] = "plateau"
    reduction: Share = 0.1
    patience: int = Field(3, ge=0)

    def factor(self, at: Position) -> float:
        """The reductions that the losses so far have caused, multiplied."""
        factor, lowest, num_bad = 1.0, math.inf, 0
        for loss in at.val_losses:
            falls = loss < lowest * (1 - PLATEAU_THRESHOLD)
            lowest, num_bad = (loss, 0) if falls else (lowest, num_bad + 1)
            if num_bad > self.patience:
                factor, num_bad = factor * self.reduction, 0
        return factor


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


Schedule = Annotated[OneCycle | Step | Cosine | Linear | Constant | Plateau, Field(discriminator="name")]


def learning_rates(
    schedule: BaseSchedule, lr: float, *, epochs: int, steps_per_epoch: int, first_epoch: int = 0
) -> list[float]:
    """The learning rate of every optimizer step of a phase; for Plateau as if the loss fell in every epoch."""
    num_steps = epochs * steps_per_epoch
    positions = (Position(step, num_steps, steps_per_epoch, first_epoch) for step in range(num_steps))
    return [lr * schedule.factor(at) for at in positions]
