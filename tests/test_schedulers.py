"""The rungs: where a trial is judged, and who goes on."""

import math
import random

import pytest

from cifar_tune.search.rungs import Rungs, rung_epochs


@pytest.mark.parametrize(
    ("epochs", "fractions", "expected"),
    [
        (8, (0.25, 0.5), {2: 0.25, 4: 0.5}),
        (25, (0.2, 0.5), {5: 0.2, 13: 0.5}),
        (5, (0.4,), {2: 0.4}),
        (10, (0.5, 0.25), {3: 0.25, 5: 0.5}),
        (10, (0.01,), {1: 0.01}),
        (10, (0.0,), {1: 0.0}),
        (3, (0.1, 0.2, 0.3), {1: 0.3}),
        (4, (0.3, 0.5), {2: 0.5}),
        (8, (), {}),
        (8, (0.9, 0.99), {}),
        (8, (0.25, 0.99), {2: 0.25}),
        (2, (0.25, 0.5), {1: 0.5}),
        (1, (0.25, 0.5), {}),
    ],
    ids=str,
)
def test_a_rung_is_after_the_first_whole_epoch_that_reaches_its_fraction(
    epochs: int, fractions: tuple[float, ...], expected: dict[int, float]
) -> None:
    assert rung_epochs(epochs, fractions) == expected


@pytest.mark.parametrize(
    ("first_rung", "expected"),
    [(1, {3: 0.25, 5: 0.5, 8: 0.75}), (3, {3: 0.25, 5: 0.5, 8: 0.75}), (4, {5: 0.5, 8: 0.75}), (8, {8: 0.75}), (9, {})],
)
def test_no_rung_lies_before_the_first_that_may_be(first_rung: int, expected: dict[int, float]) -> None:
    assert rung_epochs(10, (0.25, 0.5, 0.75), first_rung) == expected


def test_a_trial_is_not_compared_before_its_first_rung() -> None:
    """Trials of several phases and of one meet at the rungs that both have."""
    rungs = Rungs((0.25, 0.5), 0.5)
    assert rungs.record(0, 2, 8, 0.9)
    assert rungs.record(1, 2, 8, 0.1, first_rung=3)
    assert not rungs.record(2, 2, 8, 0.2)
    assert rungs.record(0, 4, 8, 0.9)
    assert not rungs.record(1, 4, 8, 0.1, first_rung=3)


@pytest.mark.parametrize("epochs", range(1, 31))
def test_every_rung_lies_within_the_run(epochs: int) -> None:
    for epoch, fraction in rung_epochs(epochs, (0.05, 0.1, 0.25, 0.5, 0.75, 0.95)).items():
        assert 1 <= epoch < epochs
        assert epoch - 1 < fraction * epochs <= epoch


def test_a_fraction_that_is_a_whole_number_of_epochs_is_that_epoch() -> None:
    """In floats 0.28 * 25 is a little above 7; that must not push the rung one epoch on."""
    late = {
        (epochs, percent / 100): rung_epochs(epochs, (percent / 100,))
        for epochs in (10, 20, 25, 50, 100)
        for percent in range(1, 100)
        if epochs * percent % 100 == 0 and list(rung_epochs(epochs, (percent / 100,))) != [epochs * percent // 100]
    }
    assert late == {}


def test_a_share_that_is_a_whole_number_of_trials_is_that_number() -> None:
    """In floats 0.28 * 25 is a little above 7; the eighth best of 25 does not go on."""
    assert judge(Rungs((0.25,), 0.28), [0.9] * 7 + [0.1] * 17 + [0.5])[-1] is False


def judge(rungs: Rungs, accuracies: list[float], epoch: int = 2, epochs: int = 8) -> list[bool]:
    return [rungs.record(trial, epoch, epochs, accuracy) for trial, accuracy in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("keep", "accuracies", "goes_on"),
    [
        (0.5, [0.5, 0.4, 0.6, 0.45, 0.55], [True, False, True, False, True]),
        (0.5, [0.1, 0.2, 0.3, 0.4], [True, True, True, True]),
        (0.5, [0.4, 0.3, 0.2, 0.1], [True, False, False, False]),
        (1.0, [0.4, 0.3, 0.2, 0.1], [True, True, True, True]),
        (0.25, [0.4, 0.3, 0.5, 0.45, 0.44], [True, False, True, False, False]),
        (0.25, [0.4, 0.3, 0.5, 0.1, 0.45], [True, False, True, False, True]),
        (0.01, [0.4, 0.3, 0.5, 0.5], [True, False, True, True]),
        (0.5, [0.3, 0.3, 0.3, 0.3], [True, True, True, True]),
    ],
    ids=str,
)
def test_the_best_share_of_the_trials_seen_so_far_goes_on(
    keep: float, accuracies: list[float], goes_on: list[bool]
) -> None:
    """The number that goes on is rounded up, and equals go on together."""
    assert judge(Rungs((0.25,), keep), accuracies) == goes_on


@pytest.mark.parametrize("keep", [0.01, 0.25, 0.5, 0.75, 1.0])
def test_each_judgement_is_by_rank_among_what_was_seen(keep: float) -> None:
    draw = random.Random(0)
    accuracies = [draw.random() for _ in range(60)]
    for trial, goes_on in enumerate(judge(Rungs((0.25,), keep), accuracies)):
        seen = sorted(accuracies[: trial + 1], reverse=True)
        allowed = max(1, math.ceil(keep * len(seen)))
        assert goes_on == (accuracies[trial] in seen[:allowed])


@pytest.mark.parametrize("keep", [0.01, 0.5, 1.0])
def test_the_first_and_every_new_best_go_on(keep: float) -> None:
    assert all(judge(Rungs((0.25,), keep), [0.1 + trial / 100 for trial in range(20)]))


@pytest.mark.parametrize("epoch", [1, 3, 5, 6, 7, 8])
def test_between_the_rungs_and_at_the_end_every_trial_goes_on(epoch: int) -> None:
    assert judge(Rungs((0.25, 0.5), 0.01), [0.9, 0.1, 0.05], epoch=epoch) == [True, True, True]


def test_what_happens_between_the_rungs_is_not_compared() -> None:
    rungs = Rungs((0.25,), 0.5)
    assert judge(rungs, [0.9, 0.8, 0.7], epoch=1) == [True, True, True]
    assert rungs.record(3, 2, 8, 0.1)


def test_each_rung_compares_its_own_accuracies() -> None:
    rungs = Rungs((0.25, 0.5), 0.5)
    assert judge(rungs, [0.6, 0.5], epoch=2) == [True, False]
    assert judge(rungs, [0.2, 0.3], epoch=4) == [True, True]


def test_trials_of_different_lengths_meet_at_the_same_share_of_their_schedules() -> None:
    rungs = Rungs((0.25,), 0.5)
    assert rungs.record(0, 2, 8, 0.6)
    assert not rungs.record(1, 5, 20, 0.5)
    assert rungs.record(2, 25, 100, 0.7)


def test_a_trial_that_comes_again_replaces_what_was_seen_of_it() -> None:
    """A resumed trial, and the rungs that are rebuilt from the record, may report an epoch twice."""
    rungs = Rungs((0.25,), 0.5)
    assert judge(rungs, [0.6, 0.5]) == [True, False]
    assert [rungs.record(1, 2, 8, 0.5) for _ in range(5)] == [False] * 5
    assert rungs.record(0, 2, 8, 0.6)


def test_rungs_rebuilt_in_another_order_judge_the_next_trial_the_same() -> None:
    draw = random.Random(1)
    accuracies = [draw.random() for _ in range(30)]
    for new in (0.1, 0.45, 0.5, 0.55, 0.9):
        forwards, backwards = Rungs((0.25,), 0.5), Rungs((0.25,), 0.5)
        judge(forwards, accuracies)
        judge(backwards, accuracies[::-1])
        assert forwards.record(99, 2, 8, new) == backwards.record(99, 2, 8, new)


def test_a_search_without_rungs_stops_nobody() -> None:
    assert all(judge(Rungs((), 0.01), [0.9, 0.1, 0.05], epoch=epoch) == [True] * 3 for epoch in range(1, 9))
