"""Every schedule as a pure function of the position, and each against its definition or torch's own."""

import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR

from cifar_tune.recipe.schedules import (
    BaseSchedule,
    Constant,
    Cosine,
    Linear,
    OneCycle,
    Plateau,
    Position,
    Schedule,
    Step,
    learning_rates,
)

MEMBERS: tuple[type[BaseSchedule], ...] = get_args(get_args(Schedule)[0])
VARIATIONS: tuple[BaseSchedule, ...] = (
    *(member() for member in MEMBERS),
    OneCycle(shape="torch"),
    Cosine(warmup=0.25),
    Linear(warmup=0.25, final=0.1),
    Step(every=1, gamma=0.1),
)
every_schedule = pytest.mark.parametrize("schedule", VARIATIONS, ids=str)
RUNS = [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (1, 5), (3, 7), (8, 113), (25, 4)]
every_run = pytest.mark.parametrize(("epochs", "steps_per_epoch"), RUNS, ids=str)


def positions(num_steps: int) -> list[Position]:
    return [Position(step, num_steps, num_steps) for step in range(num_steps)]


def rates_of_torch(
    make: Callable[[Optimizer], LRScheduler], num_steps: int, steps_per_epoch: int = 1, lr: float = 1.0
) -> list[float]:
    """The rate of every step when the scheduler moves once in `steps_per_epoch` steps."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for step in range(num_steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if (step + 1) % steps_per_epoch == 0 and step + 1 < num_steps:
            scheduler.step()
    return rates


@every_schedule
@every_run
def test_every_step_has_a_share_of_the_full_rate(schedule: BaseSchedule, epochs: int, steps_per_epoch: int) -> None:
    rates = learning_rates(schedule, 0.5, epochs=epochs, steps_per_epoch=steps_per_epoch)
    assert len(rates) == epochs * steps_per_epoch
    assert all(0 <= rate <= 0.5 for rate in rates)
    assert max(rates) > 0


@every_schedule
@every_run
def test_momentum_is_a_share_or_left_alone(schedule: BaseSchedule, epochs: int, steps_per_epoch: int) -> None:
    num_steps = epochs * steps_per_epoch
    for step in range(num_steps):
        momentum = schedule.momentum(Position(step, num_steps, steps_per_epoch))
        assert momentum is None or 0 <= momentum < 1


@every_schedule
def test_a_rate_depends_on_nothing_but_its_position(schedule: BaseSchedule) -> None:
    forwards = [schedule.factor(Position(step, 20, 5)) for step in range(20)]
    backwards = [schedule.factor(Position(step, 20, 5)) for step in reversed(range(20))]
    assert forwards == backwards[::-1]


@every_schedule
def test_rates_are_proportional_to_the_full_rate(schedule: BaseSchedule) -> None:
    one = learning_rates(schedule, 1.0, epochs=4, steps_per_epoch=5)
    assert learning_rates(schedule, 4.0, epochs=4, steps_per_epoch=5) == [4 * rate for rate in one]


def test_constant_stays() -> None:
    assert learning_rates(Constant(), 0.3, epochs=3, steps_per_epoch=4) == [0.3] * 12


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 5, 7, 10, 11, 33, 100, 904])
def test_torchs_one_cycle_is_torchs_step_for_step(num_steps: int) -> None:
    schedule = OneCycle(shape="torch")
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = OneCycleLR(optimizer, max_lr=0.01, total_steps=num_steps)
    for at in positions(num_steps):
        (group,) = optimizer.param_groups
        assert 0.01 * schedule.factor(at) == pytest.approx(group["lr"], rel=1e-9, abs=1e-12)
        assert schedule.momentum(at) == pytest.approx(group["momentum"], rel=1e-9)
        optimizer.step()
        if at.step + 1 < num_steps:
            scheduler.step()


def test_torchs_one_cycle_moves_adams_beta1() -> None:
    schedule = OneCycle(shape="torch")
    optimizer = Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = OneCycleLR(optimizer, max_lr=0.01, total_steps=20)
    for at in positions(20):
        assert schedule.momentum(at) == pytest.approx(optimizer.param_groups[0]["betas"][0], rel=1e-9)
        optimizer.step()
        if at.step + 1 < 20:
            scheduler.step()


def test_torchs_one_cycle_takes_torchs_divisors() -> None:
    schedule = OneCycle(shape="torch", initial_div=10, final_div=100)
    rates = learning_rates(schedule, 0.01, epochs=1, steps_per_epoch=40)
    theirs = rates_of_torch(lambda o: OneCycleLR(o, 0.01, total_steps=40, div_factor=10, final_div_factor=100), 40)
    assert rates == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("num_steps", [4, 6, 100, 904])
def test_the_resnet9_projects_one_cycle_is_linear_to_the_peak_at_half_and_exponential_from_there(
    num_steps: int,
) -> None:
    rates = learning_rates(OneCycle(), 0.01, epochs=1, steps_per_epoch=num_steps)
    peak = num_steps // 2 - 1
    assert rates[0] == pytest.approx(0.01 / 25)
    assert rates[peak] == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0.01 / 25 / 1e4)
    rise = (0.01 - 0.01 / 25) / peak
    assert [b - a for a, b in pairwise(rates[: peak + 1])] == pytest.approx([rise] * peak)
    fall = (1 / 25 / 1e4) ** (1 / (num_steps - 1 - peak))
    assert [b / a for a, b in pairwise(rates[peak:])] == pytest.approx([fall] * (num_steps - 1 - peak))


@pytest.mark.parametrize("num_steps", [3, 5, 101])
def test_the_resnet9_projects_one_cycle_of_an_odd_length_keeps_its_ends(num_steps: int) -> None:
    rates = learning_rates(OneCycle(), 0.01, epochs=1, steps_per_epoch=num_steps)
    assert (rates[0], rates[-1]) == pytest.approx((0.01 / 25, 0.01 / 25 / 1e4))
    highest = rates.index(max(rates))
    assert highest in (num_steps // 2 - 1, num_steps // 2)
    assert rates == sorted(rates[: highest + 1]) + sorted(rates[highest + 1 :], reverse=True)


def test_the_resnet9_projects_one_cycle_leaves_momentum_alone() -> None:
    assert {OneCycle().momentum(at) for at in positions(10)} == {None}


@pytest.mark.parametrize(("every", "gamma"), [(20, 0.5), (1, 0.1), (3, 0.9), (30, 0.5)])
@pytest.mark.parametrize("steps_per_epoch", [1, 4])
def test_step_is_torchs(every: int, gamma: float, steps_per_epoch: int) -> None:
    rates = learning_rates(Step(every=every, gamma=gamma), 0.001, epochs=25, steps_per_epoch=steps_per_epoch)
    theirs = rates_of_torch(lambda o: StepLR(o, every, gamma), 25 * steps_per_epoch, steps_per_epoch, lr=0.001)
    assert rates == pytest.approx(theirs, rel=1e-9)


def test_step_halves_the_mini_resnet_projects_rate_after_epoch_20() -> None:
    rates = learning_rates(Step(), 0.001, epochs=25, steps_per_epoch=450)
    assert rates == [0.001] * 20 * 450 + [0.0005] * 5 * 450


@pytest.mark.parametrize(("first_epoch", "shares"), [(0, [1, 1, 1, 0.5, 0.5]), (2, [1, 0.5, 0.5, 0.5, 0.25])])
def test_step_counts_from_the_start_of_the_run_in_every_phase(first_epoch: int, shares: list[float]) -> None:
    schedule = Step(every=3, gamma=0.5)
    rates = learning_rates(schedule, 0.1, epochs=5, steps_per_epoch=2, first_epoch=first_epoch)
    assert rates == pytest.approx([0.1 * share for share in shares for _ in range(2)])


@every_schedule
@pytest.mark.parametrize("first_epoch", [1, 7])
def test_every_other_schedule_starts_over_in_each_phase(schedule: BaseSchedule, first_epoch: int) -> None:
    first = learning_rates(schedule, 0.1, epochs=4, steps_per_epoch=3)
    later = learning_rates(schedule, 0.1, epochs=4, steps_per_epoch=3, first_epoch=first_epoch)
    assert later == first or isinstance(schedule, Step)


NOISE = random.Random(0)
LOSSES: dict[str, list[float]] = {
    "falling": [2 * 0.9**epoch for epoch in range(40)],
    "flat": [1.5] * 40,
    "rising": [1 + epoch / 10 for epoch in range(40)],
    "random": [NOISE.random() for _ in range(40)],
    "falling with noise": [2 * 0.95**epoch + NOISE.gauss(0, 0.1) for epoch in range(40)],
    "falling by less than counts": [1 - 5e-5 * epoch for epoch in range(40)],
    "falling by a little more than counts": [(1 - 1.1e-4) ** epoch for epoch in range(40)],
    "in steps": [1 / (1 + epoch // 7) for epoch in range(40)],
}


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(("gamma", "patience"), [(0.1, 3), (0.5, 0), (0.5, 1), (0.9, 2), (0.3, 10)])
def test_plateau_is_torchs_epoch_by_epoch(losses: Sequence[float], gamma: float, patience: int) -> None:
    """Torch never lowers a rate by less than 1e-8, which is too small to matter at a rate of a million."""
    schedule = Plateau(reduction=gamma, patience=patience)
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e6)
    scheduler = ReduceLROnPlateau(optimizer, factor=gamma, patience=patience)
    for epoch, loss in enumerate(losses):
        for step in (0, 1):
            at = Position(2 * epoch + step, 2 * len(losses), 2, val_losses=losses[:epoch])
            expected = optimizer.param_groups[0]["lr"]
            assert 1e6 * schedule.factor(at) == pytest.approx(expected, rel=1e-9, abs=1e-7)
        optimizer.step()
        scheduler.step(loss)


def test_plateaus_plan_is_its_first_rate() -> None:
    assert learning_rates(Plateau(patience=0), 0.3, epochs=30, steps_per_epoch=4) == [0.3] * 120


@pytest.mark.parametrize("num_steps", [1, 2, 5, 100])
def test_cosine_is_torchs(num_steps: int) -> None:
    rates = learning_rates(Cosine(), 0.1, epochs=1, steps_per_epoch=num_steps)
    theirs = rates_of_torch(lambda o: CosineAnnealingLR(o, T_max=num_steps), num_steps, lr=0.1)
    assert rates == pytest.approx(theirs, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("final", [0.0, 0.07])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_the_linear_fall_is_torchs(num_steps: int, final: float) -> None:
    theirs = rates_of_torch(lambda o: LinearLR(o, 1.0, final, total_iters=num_steps), num_steps, lr=0.1)
    assert learning_rates(Linear(final=final), 0.1, epochs=1, steps_per_epoch=num_steps) == pytest.approx(theirs)


def test_cosine_rises_in_a_line_and_then_falls_from_the_full_rate() -> None:
    rates = learning_rates(Cosine(warmup=0.2), 1.0, epochs=10, steps_per_epoch=2)
    assert rates[:4] == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5])
    assert rates[4:] == pytest.approx([(1 + math.cos(math.pi * step / 16)) / 2 for step in range(16)])


@pytest.mark.parametrize(
    "options",
    [
        {"name": "step", "every": 0},
        {"name": "step", "gamma": 1.0},
        {"name": "cosine", "warmup": 1.0},
        {"name": "plateau", "reduction": 1.0},
        {"name": "plateau", "patience": -1},
        {"name": "one-cycle", "initial_div": 0},
        {"name": "one-cycle", "final_div": -1},
        {"name": "one-cycle", "shape": "triangle"},
    ],
    ids=str,
)
def test_options_without_a_meaning_are_refused(options: dict[str, Any]) -> None:
    (member,) = (member for member in MEMBERS if member.model_fields["name"].default == options["name"])
    with pytest.raises(ValueError, match=str(list(options)[1])):
        member.model_validate(options)
