"""The schedulers: where a trial is judged, with which others it is compared, and which trials go on."""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from cifar_tune.recipe.recipe import Recipe, Value
from cifar_tune.recipe.schedules import BaseSchedule, Schedule
from cifar_tune.search.judge import Judge, Judgement
from cifar_tune.search.rungs import group_of, rung_epochs
from cifar_tune.search.schedulers import Asha, FreezeThaw, Hyperband, Median, NoStopping, Promotion, Scheduler, Verdict
from cifar_tune.trials.facts import LET_THROUGH, RUNGS, STOPPED_AT
from cifar_tune.trials.goal import Goal
from cifar_tune.trials.trial import State, Trial

SCHEDULERS: list[Scheduler] = [member() for member in get_args(get_args(Scheduler)[0])]
every_scheduler = pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: scheduler.name)
by_scores = pytest.mark.parametrize(
    "scheduler",
    [s for s in SCHEDULERS if s.name not in ("forecast", "freeze-thaw")],
    ids=lambda scheduler: scheduler.name,
)

STATES: dict[Verdict, State] = {"pause": "paused", "stop": "pruned"}


def recipe(epochs: int = 8, **settings: Value) -> Recipe:
    """A recipe with a constant learning rate by default; `head_epochs` makes it two phases."""
    named = {name.replace("__", "/"): value for name, value in settings.items()}
    document = {
        "dataset": "shapes",
        "model": {"name": "mini_resnet"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "schedule": {"name": named.get("schedule", "constant")},
        "epochs": epochs,
        "batch_size": 32,
    }
    if "head_epochs" in named:
        document["finetune"] = {"name": "two-phase", "head_epochs": named["head_epochs"]}
    return Recipe.model_validate(document)


def trial(
    number: int,
    accuracies: Sequence[float],
    planned: Recipe | None = None,
    *,
    is_baseline: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Trial:
    """A running trial after epochs with these accuracies."""
    curve = [{"epoch": i, "val_accuracy": accuracy} for i, accuracy in enumerate(accuracies, start=1)]
    return Trial("tiny", number, "running", planned or recipe(), {}, is_baseline, curve, facts or {})


def goes_on(judge: Judge, number: int, accuracy: float, epoch: int = 2, planned: Recipe | None = None) -> bool:
    """Whether a trial goes on after so many epochs, all with the same accuracy."""
    return judge.judge(trial(number, [accuracy] * epoch, planned)).verdict == "continue"


def judged(judge: Judge, accuracies: Sequence[float], epoch: int = 2) -> list[bool]:
    """Whether each trial goes on; they have 8 epochs and reach their rung one after another."""
    return [goes_on(judge, number, accuracy, epoch) for number, accuracy in enumerate(accuracies)]


def asha(rungs: tuple[float, ...] = (0.25,), keep: float = 0.5) -> Judge:
    return Judge(Asha(rungs=rungs, keep=keep, let_through=0), 0)


def run(judge: Judge, whole: Trial) -> Trial:
    """Train a trial as far as the judge lets it; the trial with its state and facts."""
    for num_epochs in range(whole.epochs + 1):
        so_far = replace(whole, curve=whole.curve[:num_epochs])
        if num_epochs:
            judgement = judge.judge(so_far)
            whole = replace(whole, facts={**whole.facts, **judgement.facts})
            if judgement.verdict != "continue":
                return replace(so_far, state=STATES[judgement.verdict], facts=whole.facts)
    return replace(whole, state="completed")


def rebuilt(scheduler: Scheduler, trials: Sequence[Trial], seed: int = 0) -> Judge:
    """A judge that was rebuilt from the trials of a record."""
    judge = Judge(scheduler, seed)
    for each in trials:
        for num_epochs in range(1, each.epochs + 1):
            judge.judge(replace(each, state="running", curve=each.curve[:num_epochs]))
    return judge


def rising(number: int, quality: float, planned: Recipe | None = None, *, is_baseline: bool = False) -> Trial:
    planned = planned or recipe()
    accuracies = [quality * epoch / planned.epochs for epoch in range(1, planned.epochs + 1)]
    return trial(number, accuracies, planned, is_baseline=is_baseline)


# Where the rungs are


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
def test_a_rung_is_the_first_whole_epoch_that_reaches_its_fraction(
    epochs: int, fractions: tuple[float, ...], expected: dict[int, float]
) -> None:
    assert rung_epochs(recipe(epochs), fractions) == expected


@pytest.mark.parametrize(
    ("epochs", "head_epochs", "expected"),
    [
        (20, 10, {13: 0.25, 15: 0.5, 18: 0.75}),
        (8, 4, {6: 0.5, 7: 0.75}),
        (10, 8, {}),
        (4, 1, {3: 0.5}),
    ],
)
def test_rungs_lie_in_the_last_phase_and_two_epochs_into_it(
    epochs: int, head_epochs: int, expected: dict[int, float]
) -> None:
    """Each phase has its own schedule. Of 8 epochs, 4 of them for the head, the rung after epoch 5 is left out."""
    assert rung_epochs(recipe(epochs, head_epochs=head_epochs), (0.25, 0.5, 0.75)) == expected


@pytest.mark.parametrize("epochs", range(1, 31))
def test_every_rung_lies_within_the_run(epochs: int) -> None:
    for epoch, fraction in rung_epochs(recipe(epochs), (0.05, 0.1, 0.25, 0.5, 0.75, 0.95)).items():
        assert 1 <= epoch < epochs
        assert epoch - 1 < fraction * epochs <= epoch


def test_a_fraction_that_is_a_whole_number_of_epochs_is_that_epoch() -> None:
    """In floats 0.28 * 25 is a little above 7, which must not delay the rung by an epoch."""
    late = {
        (epochs, percent / 100): rungs
        for epochs in (10, 20, 25, 50, 100)
        for percent in range(1, 100)
        if epochs * percent % 100 == 0
        and list(rungs := rung_epochs(recipe(epochs), (percent / 100,))) != [epochs * percent // 100]
    }
    assert late == {}


def test_the_rungs_are_the_schedules_unless_the_search_has_its_own() -> None:
    """The longer the learning rate stays high, the later."""
    first = {name: recipe(schedule=name).schedule.rungs[0] for name in ("constant", "step", "cosine", "one-cycle")}
    assert first["constant"] == first["step"] < first["cosine"] < first["one-cycle"]
    one_cycle = recipe(20, schedule="one-cycle")
    scores = [0.9, 0.1]
    for judge, epoch in ((Judge(Asha(let_through=0), 0), 10), (asha(), 5)):
        assert [goes_on(judge, number, score, epoch, one_cycle) for number, score in enumerate(scores)] == [True, False]
    assert all(goes_on(Judge(Asha(let_through=0), 0), number, 0.1, 5, one_cycle) for number in range(9))


@pytest.mark.parametrize("schedule", get_args(get_args(Schedule)[0]), ids=lambda schedule: schedule.__name__)
def test_every_schedule_has_rungs(schedule: type[BaseSchedule]) -> None:
    assert schedule.rungs
    assert list(schedule.rungs) == sorted(set(schedule.rungs))
    assert all(0 < fraction < 1 for fraction in schedule.rungs)


def test_trials_whose_schedules_share_rungs_are_compared() -> None:
    judge = asha((0.5,))
    assert goes_on(judge, 0, 0.6, 4)
    assert not goes_on(judge, 1, 0.5, 4, recipe(schedule="step"))
    assert goes_on(judge, 2, 0.1, 4, recipe(schedule="cosine"))
    assert goes_on(judge, 3, 0.1, 4, recipe(schedule="one-cycle"))
    assert not goes_on(judge, 4, 0.4, 4, recipe(schedule="plateau"))


def test_trials_of_one_phase_and_of_two_are_not_compared() -> None:
    """Half of the second phase is three quarters of the run."""
    judge = asha((0.5,))
    assert goes_on(judge, 0, 0.9, 4)
    assert goes_on(judge, 1, 0.1, 6, recipe(head_epochs=4))
    assert group_of(recipe()) != group_of(recipe(head_epochs=4))


def test_trials_of_different_lengths_are_compared_at_the_same_share_of_their_schedules() -> None:
    judge = asha()
    assert goes_on(judge, 0, 0.6, 2)
    assert not goes_on(judge, 1, 0.5, 5, recipe(20))
    assert goes_on(judge, 2, 0.7, 25, recipe(100))


# Successive halving


@pytest.mark.parametrize(
    ("keep", "accuracies", "expected"),
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
def test_the_best_share_of_the_trials_so_far_goes_on(
    keep: float, accuracies: list[float], expected: list[bool]
) -> None:
    """The number of trials is rounded up, and equals go on together."""
    assert judged(asha(keep=keep), accuracies) == expected


@pytest.mark.parametrize("keep", [0.01, 0.25, 0.5, 0.75, 1.0])
def test_a_judgement_is_by_rank_among_the_trials_so_far(keep: float) -> None:
    """The rule in other words; no trial is let through."""
    draw = random.Random(0)
    accuracies = [draw.choice([draw.random(), 0.5]) for _ in range(200)]
    for number, went_on in enumerate(judged(asha(keep=keep), accuracies)):
        ranked = sorted(accuracies[: number + 1], reverse=True)
        assert went_on == (accuracies[number] in ranked[: max(1, math.ceil(keep * len(ranked)))])


def test_a_share_that_is_a_whole_number_of_trials_is_that_number() -> None:
    """In floats 0.28 * 25 is a little above 7; the eighth best of 25 does not go on."""
    assert judged(asha(keep=0.28), [0.9] * 7 + [0.1] * 17 + [0.5])[-1] is False


@pytest.mark.parametrize("keep", [0.01, 0.5, 1.0])
def test_the_first_and_every_new_best_go_on(keep: float) -> None:
    assert all(judged(asha(keep=keep), [0.1 + number / 100 for number in range(20)]))


@pytest.mark.parametrize("epoch", [1, 3, 5, 6, 7, 8])
def test_between_the_rungs_and_at_the_end_every_trial_goes_on(epoch: int) -> None:
    assert judged(asha((0.25, 0.5), 0.01), [0.9, 0.1, 0.05], epoch) == [True, True, True]


def test_scores_between_the_rungs_are_not_compared() -> None:
    judge = asha()
    assert judged(judge, [0.9, 0.8, 0.7], 1) == [True, True, True]
    assert goes_on(judge, 3, 0.1)


def test_each_rung_compares_its_own_accuracies() -> None:
    judge = asha((0.25, 0.5))
    assert judged(judge, [0.6, 0.5], 2) == [True, False]
    assert judged(judge, [0.2, 0.3], 4) == [True, True]


def test_a_repeated_trial_replaces_its_earlier_score() -> None:
    judge = asha()
    assert judged(judge, [0.6, 0.5]) == [True, False]
    assert [goes_on(judge, 1, 0.5) for _ in range(5)] == [False] * 5
    assert goes_on(judge, 0, 0.6)


def test_a_baseline_is_compared_with_others_and_never_stopped() -> None:
    judge = asha()
    assert judge.judge(trial(0, [0.9, 0.9], is_baseline=True)).verdict == "continue"
    assert not goes_on(judge, 2, 0.5)
    assert judge.judge(trial(1, [0.1, 0.1], is_baseline=True)).verdict == "continue"


# Other rules


@pytest.mark.parametrize("scheduler", [NoStopping(), Asha(rungs=())], ids=lambda scheduler: scheduler.name)
def test_a_search_without_rungs_stops_no_trial(scheduler: Scheduler) -> None:
    judge = Judge(scheduler, 0)
    assert all(judged(judge, [0.9, 0.1, 0.05], epoch) == [True] * 3 for epoch in range(1, 9))


BRACKETS = Hyperband(rungs=(0.25, 0.5), let_through=0)


def bracket(number: int) -> int:
    """The bracket of a trial, by its first rung; 2 for none."""
    rungs = [BRACKETS.rung(trial(number, [0.5] * epoch)) for epoch in range(1, 8)]
    return next(({0.25: 0, 0.5: 1}[rung.fraction] for rung in rungs if rung), 2)


def test_each_bracket_of_hyperband_begins_one_rung_later() -> None:
    rungs: dict[int, list[float]] = {bracket(number): [] for number in range(20)}
    for number in range(20):
        reached = [BRACKETS.rung(trial(number, [0.5] * epoch)) for epoch in range(1, 8)]
        rungs[bracket(number)] = [rung.fraction for rung in reached if rung]
    assert rungs == {0: [0.25, 0.5], 1: [0.5], 2: []}


def test_each_bracket_of_hyperband_gets_about_the_same_number_of_epochs() -> None:
    """Their trials take 4, 6 and 8 of 8 epochs, so the shares are as 6 to 4 to 3, even in the first few trials."""
    for num_trials, tolerance in ((13, 1), (1300, 5)):
        counts = Counter(bracket(number) for number in range(num_trials))
        for place, weight in enumerate((6, 4, 3)):
            assert abs(counts[place] - weight * num_trials / 13) <= tolerance


def test_trials_of_one_bracket_are_compared() -> None:
    judge = Judge(BRACKETS, 0)
    numbers = [[number for number in range(30) if bracket(number) == place] for place in range(3)]
    assert [goes_on(judge, number, 0.9, 4) for number in numbers[0][:2]] == [True, True]
    assert [goes_on(judge, number, 0.5, 4) for number in numbers[1][:2]] == [True, True]
    assert not goes_on(judge, numbers[1][2], 0.4, 4)
    assert not goes_on(judge, numbers[0][2], 0.8, 4)
    assert all(goes_on(judge, number, 0.1, epoch) for number in numbers[2] for epoch in range(1, 8))


def median_of(curves: Sequence[Sequence[float]], grace: float = 0.25) -> list[bool]:
    """Whether each trial goes on after its last epoch."""
    judge = Judge(Median(rungs=(0.25, 0.5), grace=grace, let_through=0), 0)
    return [judge.judge(trial(number, curve)).verdict == "continue" for number, curve in enumerate(curves)]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.2, 0.3], False),  # the means of the others are 0.3, 0.4 and 0.5
        ([0.2, 0.39], False),
        ([0.2, 0.4], True),
        ([0.4, 0.1], True),
        ([0.9, 0.9], True),
    ],
    ids=str,
)
def test_the_median_rule_compares_the_best_so_far_with_the_median_of_the_others_means(
    curve: list[float], expected: bool
) -> None:
    others = [[0.4, 0.6], [0.2, 0.4], [0.5, 0.3]]
    assert median_of([*others, curve]) == [True, True, True, expected]


def test_the_median_rule_stops_no_trial_while_there_are_few() -> None:
    assert median_of([[0.9] * 2, [0.8] * 2, [0.1] * 2, [0.1] * 2]) == [True, True, True, False]


def test_the_median_rule_stops_no_trial_during_the_grace() -> None:
    curves = [[0.9] * 2] * 5 + [[0.1] * 2]
    assert median_of(curves)[-1] is False
    assert median_of(curves, grace=0.4)[-1] is True
    assert median_of([[0.9] * 4] * 5 + [[0.1] * 4], grace=0.4)[-1] is False


def test_equals_pass_the_median_rule() -> None:
    """A rounded mean of equal floats may lie above each of them."""
    for accuracy in (0.1, 0.3, 0.7, 1 / 3):
        assert all(median_of([[accuracy] * 4] * 9))


# Letting through


def let_through(scheduler: Asha, seed: int, num_trials: int = 10_000) -> set[int]:
    return {number for number in range(num_trials) if scheduler.is_let_through(number, seed)}


@pytest.mark.parametrize(("share", "bounds"), [(0.0, (0, 0)), (0.05, (430, 570)), (0.5, (4_840, 5_160))])
def test_the_share_of_trials_that_is_let_through(share: float, bounds: tuple[int, int]) -> None:
    """Within three standard deviations of 10,000 draws."""
    low, high = bounds
    assert low <= len(let_through(Asha(let_through=share), seed=3)) <= high


def test_the_trials_that_are_let_through_depend_on_seed_and_number_only() -> None:
    """The numbers are written here, so that a version that lets other trials through is noticed."""
    assert let_through(Asha(), 0, 100) == let_through(Asha(keep=0.1), 0, 100) == {9, 10, 20, 46, 75, 77, 79, 80, 92}
    assert let_through(Asha(), 0) != let_through(Asha(), 1)
    assert let_through(Asha(), 0) < let_through(Asha(let_through=0.2), 0)


def test_a_trial_that_is_let_through_goes_on_to_its_end_with_its_epoch_as_a_fact() -> None:
    number = next(n for n in range(1, 1000) if Asha().is_let_through(n, 0))
    judge = Judge(Asha(rungs=(0.25, 0.5), keep=0.01), 0)
    assert run(judge, rising(0, 0.9)).state == "completed"
    (weak,) = [run(judge, rising(number, 0.1))]
    assert (weak.state, weak.epochs) == ("completed", 8)
    assert weak.facts == {RUNGS: {"2": 0.25}, LET_THROUGH: 2}


def test_others_are_compared_with_a_trial_that_was_let_through_only_where_it_would_have_stopped() -> None:
    """So the other trials are judged as if none were let through."""
    draw = random.Random(2)
    trials = [rising(number, draw.random()) for number in range(200)]
    with_none, with_some = (Judge(Asha(let_through=share), 0) for share in (0, 0.2))
    for each in trials:
        strict, lenient = run(with_none, each), run(with_some, each)
        if LET_THROUGH in lenient.facts:
            assert lenient.facts[LET_THROUGH] == strict.epochs
            assert strict.state == "pruned"
        else:
            assert (lenient.state, lenient.facts) == (strict.state, strict.facts)


def test_the_rungs_that_a_trial_passed_and_its_last_one_are_facts() -> None:
    judge = asha((0.25, 0.5))
    assert run(judge, trial(0, [0.5] * 8)).facts == {RUNGS: {"2": 0.25, "4": 0.5}}
    assert run(judge, trial(1, [0.6, 0.6, 0.4, 0.4, 0.4])).facts == {RUNGS: {"2": 0.25}, STOPPED_AT: 0.5}


# Pausing


def promotion(rungs: tuple[float, ...] = (0.25, 0.5), keep: float = 0.5) -> Judge:
    return Judge(Promotion(rungs=rungs, keep=keep), 0)


def paused(judge: Judge, scores: Mapping[int, float], epoch: int = 2, planned: Recipe | None = None) -> list[Trial]:
    """Trials that were paused with these scores after so many epochs."""
    trials = [trial(number, [score] * epoch, planned) for number, score in scores.items()]
    assert {judge.judge(each).verdict for each in trials} == {"pause"}
    return [replace(each, state="paused") for each in trials]


def test_every_trial_but_a_baseline_is_paused_at_a_rung_without_a_fact() -> None:
    judge = promotion()
    assert judge.judge(trial(0, [0.9, 0.9])) == Judgement("pause")
    assert judge.judge(trial(1, [0.1, 0.1])) == Judgement("pause")
    assert judge.judge(trial(2, [0.1], is_baseline=True)) == Judgement("continue")
    assert judge.judge(trial(2, [0.1, 0.1], is_baseline=True)) == Judgement("continue", {RUNGS: {"2": 0.25}})
    assert judge.judge(trial(0, [0.9] * 3)) == Judgement("continue")


def test_trials_are_paused_at_the_rungs_of_their_own_schedules() -> None:
    judge = Judge(Promotion(), 0)
    assert set(judge.pauses(trial(1, []))) == {2, 4}
    assert set(judge.pauses(trial(1, [], recipe(20, schedule="cosine")))) == {8, 14}
    assert set(judge.pauses(trial(0, [], is_baseline=True))) == set()
    assert set(Judge(Asha(), 0).pauses(trial(1, []))) == set()


@pytest.mark.parametrize(
    ("scores", "keep", "expected"),
    [
        ({1: 0.5}, 0.5, None),
        ({1: 0.5, 2: 0.6}, 0.5, 2),
        ({1: 0.5, 2: 0.6, 3: 0.7}, 0.5, 3),
        ({1: 0.5, 2: 0.5}, 0.5, 1),
        (dict.fromkeys(range(1, 4), 0.5), 0.3, None),
        (dict.fromkeys(range(1, 5), 0.5), 0.3, 1),
        ({1: 0.5}, 1.0, 1),
    ],
)
def test_the_best_trial_goes_on_once_its_rung_has_enough_trials(
    scores: Mapping[int, float], keep: float, expected: int | None
) -> None:
    judge = promotion(keep=keep)
    assert judge.thaws(paused(judge, scores), can_begin=True) == expected


def test_trials_that_were_promoted_keep_their_places_at_their_rung() -> None:
    judge = promotion()
    waiting = paused(judge, {n: n / 10 for n in range(1, 5)})
    order = []
    while (number := judge.thaws(waiting, can_begin=True)) is not None:
        order.append(number)
        waiting = [each for each in waiting if each.number != number]
    assert order == [4, 3]
    waiting += paused(judge, {5: 0.25, 6: 0.15})
    assert judge.thaws(waiting, can_begin=True) == 5


def test_of_equals_only_as_many_go_on_as_the_rung_promotes() -> None:
    judge = promotion()
    waiting = paused(judge, dict.fromkeys(range(1, 7), 0.1))
    assert judge.thaws(waiting[2:], can_begin=True) == 3
    assert judge.thaws(waiting[3:], can_begin=True) is None


def test_the_highest_rung_comes_first() -> None:
    judge = promotion()
    low = paused(judge, {1: 0.8, 2: 0.7})
    high = paused(judge, {3: 0.3, 4: 0.2}, epoch=4)
    assert judge.thaws([*low, *high], can_begin=True) == 3
    assert judge.thaws([*low, high[1]], can_begin=True) == 1
    assert judge.thaws([low[1], high[1]], can_begin=True) is None


def test_a_baseline_takes_a_place_at_its_rungs() -> None:
    judge = promotion()
    judge.judge(trial(0, [0.9, 0.9], is_baseline=True))
    assert judge.thaws(paused(judge, {1: 0.5}), can_begin=True) is None
    assert judge.thaws(paused(judge, {2: 0.95}), can_begin=True) == 2


def test_trials_of_other_schedules_are_promoted_by_their_own_rungs() -> None:
    judge = promotion()
    cosine = recipe(schedule="cosine")
    waiting = [*paused(judge, {1: 0.1, 2: 0.2}), *paused(judge, {3: 0.9}, planned=cosine)]
    assert judge.thaws(waiting, can_begin=True) == 2


def test_a_trial_that_goes_on_has_passed_its_rung_and_one_that_is_given_up_was_stopped_there() -> None:
    judge = promotion()
    first, second = paused(judge, {1: 0.8, 2: 0.7})
    assert judge.thawing(first) == {RUNGS: {"2": 0.25}}
    assert judge.pruning(second) == {STOPPED_AT: 0.25}
    again = trial(1, [0.8] * 4, facts=judge.thawing(first))
    assert judge.judge(again).verdict == "pause"
    assert judge.thawing(again) == {RUNGS: {"2": 0.25, "4": 0.5}}


def test_a_promoted_trial_whose_last_epoch_is_reported_again_goes_on() -> None:
    judge = promotion()
    first, _ = paused(judge, {1: 0.8, 2: 0.7})
    assert judge.judge(replace(first, state="running", facts=judge.thawing(first))) == Judgement()


def test_the_least_promising_is_the_one_with_the_largest_share_ahead_of_it() -> None:
    judge = promotion()
    low = paused(judge, {1: 0.8, 2: 0.7, 3: 0.6, 4: 0.5})
    high = paused(judge, {5: 0.3, 6: 0.2}, epoch=4)
    assert judge.least_promising([*low, *high]).number == 4
    assert judge.least_promising([*low[:3], *high]).number == 6, "half of its rung is ahead, as of trial 3"
    assert judge.least_promising([low[0], high[0]]).number == 5


def test_among_trials_that_minimize_a_cost_those_are_rivals_that_cost_no_more() -> None:
    judge = promotion()
    costs = {1: 5, 2: 9, 3: 9}
    trials = [
        replace(
            trial(number, [score] * 2, facts={"num_parameters": costs[number]}), goal=Goal(minimize="num_parameters")
        )
        for number, score in ((1, 0.3), (2, 0.6), (3, 0.5))
    ]
    assert {judge.judge(each).verdict for each in trials} == {"pause"}
    assert judge.thaws(trials, can_begin=True) == 2, "the best of three; trial 1 is the only one of its cost"
    assert judge.thaws([trials[0], trials[2]], can_begin=True) is None


# After an interruption


@by_scores
def test_a_judge_that_is_rebuilt_decides_as_one_that_never_stopped(scheduler: Scheduler) -> None:
    """Trials of three schedules, one after another; the judge is rebuilt before each of them."""
    draw = random.Random(1)
    plans = [recipe(epochs, schedule=name) for epochs in (8, 20) for name in ("constant", "step", "cosine")]
    whole, trials = Judge(scheduler, 7), list[Trial]()
    for number in range(80):
        planned = draw.choice(plans)
        curve = [draw.random() for _ in range(planned.epochs)]
        fresh = trial(number, curve, planned, is_baseline=number == 0)
        again = run(rebuilt(scheduler, trials, 7), fresh)
        trials.append(run(whole, fresh))
        assert trials[-1] == again
    states = {each.state for each in trials}
    ends = {"none": {"completed"}, "asha-promotion": {"completed", "paused"}}
    assert states == ends.get(scheduler.name, {"completed", "pruned"})


@by_scores
def test_a_judge_does_not_depend_on_the_order_of_trials(scheduler: Scheduler) -> None:
    draw = random.Random(4)
    before = Judge(scheduler, 0)
    trials = [run(before, rising(number, draw.random())) for number in range(40)]
    for number, quality in enumerate((0.1, 0.3, 0.5, 0.7, 0.9), start=100):
        judges = [rebuilt(scheduler, order) for order in (trials, trials[::-1])]
        ends = [run(judge, rising(number, quality)) for judge in judges]
        assert ends[0] == ends[1]


def test_a_rung_that_was_passed_stays_passed_when_others_are_better() -> None:
    judge = asha()
    early = trial(1, [0.5, 0.5])
    facts = judge.judge(early).facts
    assert judged(judge, [0.9] * 9)
    assert judge.judge(early).verdict == "stop"
    assert judge.judge(replace(early, facts=facts)).verdict == "continue"


def test_since_when_a_trial_was_let_through_does_not_change() -> None:
    scheduler = Asha(rungs=(0.25, 0.5), let_through=0.99)
    judge = Judge(scheduler, 0)
    assert judged(judge, [0.9, 0.9])
    weak = run(judge, rising(5, 0.1))
    assert weak.facts[LET_THROUGH] == 2
    again = rebuilt(scheduler, [weak])  # all the others are gone, and it would pass
    for num_epochs in range(2, 9):
        assert again.judge(replace(weak, curve=weak.curve[:num_epochs])).facts == {}


# What it costs


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (NoStopping(), 8),
        (Asha(rungs=()), 8),
        (Asha(rungs=(0.25, 0.5), let_through=0), 0.5 * 2 + 0.25 * 4 + 0.25 * 8),
        (Asha(rungs=(0.5,), keep=0.25, let_through=0), 0.75 * 4 + 0.25 * 8),
        (Asha(rungs=(0.5,), keep=0.25, let_through=0.2), 0.75 * (0.8 * 4 + 0.2 * 8) + 0.25 * 8),
        (Asha(keep=1), 8),
        (Promotion(rungs=(0.25, 0.5)), 0.5 * 2 + 0.25 * 4 + 0.25 * 8),
        (Promotion(rungs=()), 8),
        (Median(let_through=0), 0.5 * 2 + 0.25 * 4 + 0.25 * 8),
        (Median(grace=0.9), 8),
        (BRACKETS, 6 / 13 * 4 + 4 / 13 * 6 + 3 / 13 * 8),
    ],
    ids=str,
)
def test_the_epochs_that_an_average_trial_takes(scheduler: Scheduler, expected: float) -> None:
    assert scheduler.expected_epochs(recipe()) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [Asha(), Asha(keep=0.25), Hyperband(let_through=0.2)], ids=str)
def test_many_random_trials_take_the_epochs_that_are_expected(scheduler: Scheduler) -> None:
    draw = random.Random(5)
    judge = Judge(scheduler, 0)
    trials = [run(judge, rising(number, draw.random(), recipe(20))) for number in range(3000)]
    assert sum(each.epochs for each in trials) / 3000 == pytest.approx(scheduler.expected_epochs(recipe(20)), rel=0.04)


@every_scheduler
def test_a_trial_is_expected_to_take_no_more_than_its_epochs(scheduler: Scheduler) -> None:
    for epochs in range(1, 12):
        assert 0 < scheduler.expected_epochs(recipe(epochs)) <= epochs


def test_a_trial_is_expected_to_reach_its_first_rung() -> None:
    assert 8 < FreezeThaw(rungs=(0.8,)).expected_epochs(recipe(10)) < 9


def test_a_trial_of_two_phases_is_frozen_in_the_first_one_but_stopped_in_the_second() -> None:
    assert set(FreezeThaw().pauses(recipe(16, head_epochs=10))) == {1, 2, 4, 8}
    assert min(Promotion(rungs=(0.25,)).pauses(recipe(16, head_epochs=10))) == 12


# Choosing one


@every_scheduler
def test_a_scheduler_is_chosen_by_its_name(scheduler: Scheduler) -> None:
    assert TypeAdapter(Scheduler).validate_python({"name": scheduler.name}) == scheduler
