"""What pruning saved and risked, on hand-made trials: the findings, and how the report shows them."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from cifar_tune.recipe.recipe import Recipe
from cifar_tune.report.findings import Findings
from cifar_tune.report.leaderboard import leaderboard
from cifar_tune.report.pruning import RungFindings, num_top, pruning_by_rung, spearman
from cifar_tune.report.text import describe_pruning, render
from cifar_tune.trials.trial import State, Trial

RECIPE = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet"},
    optimizer={"name": "sgd", "lr": 0.1},
    schedule={"name": "constant"},
    epochs=8,
    batch_size=32,
)
COSINE = RECIPE.replace({"schedule/name": "cosine"})
TWO_PHASE = RECIPE.replace({"finetune/name": "two-phase", "finetune/head_epochs": 4})


def trial(
    number: int,
    accuracies: Sequence[float],
    state: State = "completed",
    recipe: Recipe = RECIPE,
    seconds: float = 0.5,
    **facts: object,
) -> Trial:
    curve = [{"epoch": i, "val_accuracy": each, "seconds": seconds} for i, each in enumerate(accuracies, start=1)]
    return Trial("tiny", number, state, recipe, {}, number == 0, curve, facts)


def passed(
    number: int, at_rung: float, at_end: float, recipe: Recipe = RECIPE, seconds: float = 0.5, **facts: object
) -> Trial:
    """A trial that passed the rung after epoch 2 and was trained to its end."""
    curve = [0.1, at_rung, *[0.2] * 5, at_end]
    return trial(number, curve, "completed", recipe, seconds, rungs={"2": 0.25}, **facts)


def stopped(number: int, seconds: float = 0.5, recipe: Recipe = RECIPE) -> Trial:
    return trial(number, [0.1, 0.1], "pruned", recipe, seconds, stopped_at_rung=0.25)


def the_one(trials: Sequence[Trial]) -> RungFindings:
    (findings,) = pruning_by_rung(trials)
    return findings


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([], [], None),
        ([1, 2], [1, 2], None),
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 2, 3], [10, 100, 1000], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3], [1, 3, 2], 0.5),
        ([1, 1, 1], [1, 2, 3], None),
        ([1, 2, 3], [2, 2, 2], None),
    ],
    ids=str,
)
def test_a_rank_correlation_is_that_of_the_order_and_nothing_below_three(
    first: list[float], second: list[float], expected: float | None
) -> None:
    assert spearman(first, second) == (None if expected is None else pytest.approx(expected))


def test_a_rank_correlation_is_that_of_pandas_with_equals_too() -> None:
    first, second = [0.3, 0.3, 0.1, 0.5, 0.5, 0.5, 0.2], [0.4, 0.2, 0.2, 0.6, 0.3, 0.6, 0.1]
    expected = pd.Series(first).rank().corr(pd.Series(second).rank())
    assert spearman(first, second) == pytest.approx(expected)


def test_a_rung_is_correlated_with_the_end_over_the_complete_trials_that_went_on_from_it() -> None:
    complete = [passed(0, 0.5, 0.6), passed(1, 0.6, 0.7), passed(2, 0.7, 0.5), passed(3, 0.8, 0.8)]
    cut_short = [trial(4, [0.1] * 5, "interrupted", rungs={"2": 0.25}), stopped(5)]
    diverged = trial(6, [0.1] * 3, "diverged", rungs={"2": 0.25})
    findings = the_one([*complete, *cut_short, diverged, trial(7, [0.9] * 8)])
    assert findings.num_ranked == 4
    assert findings.rank_correlation == pytest.approx(0.4)


def test_a_score_at_a_rung_is_the_best_so_far_where_that_is_what_counts() -> None:
    patient = RECIPE.replace({"early_stopping/name": "patience", "early_stopping/patience": 8})
    firsts = (0.7, 0.6, 0.5)
    trials = [
        trial(number, [first, 0.1, *[0.2] * 5, first + 0.1], recipe=patient, rungs={"2": 0.25})
        for number, first in enumerate(firsts)
    ]
    assert the_one(trials).rank_correlation == pytest.approx(1.0)


def test_what_a_stopped_trial_saved_is_counted_in_epochs_and_in_its_own_seconds() -> None:
    findings = the_one([passed(0, 0.5, 0.6), stopped(1, seconds=0.5), stopped(2, seconds=2.0)])
    assert (findings.num_stopped, findings.epochs_saved) == (2, 12)
    assert findings.seconds_saved == pytest.approx(6 * 0.5 + 6 * 2.0)


@pytest.mark.parametrize(("num_complete", "expected"), [(0, 1), (1, 1), (19, 1), (20, 2), (100, 10)])
def test_the_best_are_a_tenth_of_the_complete_trials_and_one_at_least(num_complete: int, expected: int) -> None:
    trials = [passed(number, 0.5, 0.5) for number in range(num_complete)]
    assert num_top([*trials, stopped(1000)]) == expected


def test_what_was_missed_is_estimated_from_those_that_were_let_through() -> None:
    """Of 22 complete trials the best two count; one of three that were let through is among them."""
    others = [passed(number, 0.5, 0.5 + number / 1000) for number in range(19)]
    let_through = [passed(20 + i, 0.1, end, let_through_at_epoch=2) for i, end in enumerate((0.9, 0.4, 0.3))]
    findings = the_one([*others, *let_through, *(stopped(30 + i) for i in range(6))])
    assert (findings.num_let_through, findings.num_missed_top) == (3, 1)
    assert findings.estimated_missed == pytest.approx(2.0)


def test_nothing_is_estimated_where_nothing_was_let_through() -> None:
    assert the_one([passed(0, 0.5, 0.6), stopped(1)]).estimated_missed is None


def test_a_trial_that_was_let_through_counts_when_it_is_over_and_did_not_fail() -> None:
    facts: Mapping[str, Any] = {"rungs": {"2": 0.25}, "let_through_at_epoch": 2}
    states: tuple[State, ...] = ("running", "interrupted", "failed", "diverged", "out of memory")
    trials = [trial(number, [0.1] * 3, state, **facts) for number, state in enumerate(states, start=1)]
    findings = the_one([passed(0, 0.5, 0.6), *trials, stopped(9)])
    assert (findings.num_let_through, findings.num_missed_top, findings.estimated_missed) == (2, 0, 0.0)


def test_each_rung_of_each_group_of_schedules_has_its_own_findings() -> None:
    step = RECIPE.replace({"schedule/name": "step"})
    late = trial(7, [0.1] * 4, "pruned", rungs={"2": 0.25}, stopped_at_rung=0.5)
    trials = [passed(0, 0.5, 0.6), stopped(1, recipe=step), passed(2, 0.5, 0.6, COSINE), stopped(3, recipe=TWO_PHASE)]
    groups = [(f.fraction, f.schedules, f.num_phases, f.num_stopped) for f in pruning_by_rung([*trials, late])]
    assert sorted(groups) == [
        (0.25, ("constant",), 2, 1),
        (0.25, ("constant", "step"), 1, 1),
        (0.25, ("cosine",), 1, 0),
        (0.5, ("constant",), 1, 1),
    ]


@pytest.mark.parametrize(
    "trials", [[], [trial(0, [0.5] * 8)], [trial(0, [0.5] * 8), trial(1, [0.1] * 2, "pruned")]], ids=len
)
def test_a_record_without_rungs_has_no_findings(trials: list[Trial]) -> None:
    """A record of an older version has none."""
    assert pruning_by_rung(trials) == []
    assert describe_pruning(trials) == []


def shown(trials: Sequence[Trial]) -> str:
    console = Console(file=StringIO(), width=160)
    for part in describe_pruning(trials):
        console.print(part)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_report_says_what_pruning_saved_only_where_a_trial_was_pruned() -> None:
    assert describe_pruning([passed(0, 0.5, 0.6)]) == []
    trials = [passed(0, 0.5, 0.6), passed(1, 0.6, 0.7), passed(2, 0.7, 0.5), stopped(3)]
    text = shown(trials)
    assert "Pruning stopped 1 of 4 trials and saved up to 6 of 32 epochs, about 3 s at each" in text
    (row,) = [line for line in text.splitlines() if line.lstrip().startswith("0.25")]
    assert row.split() == ["0.25", "constant", "1", "6", "3", "-0.50", "(n=3)"]
    assert (
        len(render(Findings({"tiny": trials}), 100)) == 5
    )  # the leaderboard, the headline, two of pruning, what "unconfirmed" means


def test_an_estimate_is_shown_with_its_n() -> None:
    through = passed(1, 0.1, 0.9, let_through_at_epoch=2)
    text = shown([passed(0, 0.5, 0.6), through, stopped(2), stopped(3, recipe=TWO_PHASE)])
    assert "about 1.0 (n=1)" in text
    assert "constant (phase 2)" in text
    assert "an estimate" in text


def test_what_was_missed_is_a_column_only_where_trials_were_let_through() -> None:
    trials = [passed(0, 0.5, 0.6), stopped(1)]
    through = passed(2, 0.1, 0.9, let_through_at_epoch=2)
    assert "missed" not in shown(trials)
    assert "missed" in shown([*trials, through])


def test_a_row_says_at_which_epoch_its_trial_was_let_through() -> None:
    frame = leaderboard({"tiny": [passed(0, 0.5, 0.6), passed(1, 0.1, 0.9, let_through_at_epoch=2)]})
    assert list(frame["let_through"]) == [2, None]
