"""The figures: what they show of made-up searches, and what they say where they cannot be drawn."""

import math
from dataclasses import replace

import numpy as np
import optuna
import pytest
from helpers.made_trials import made_up_trials, spanning_trials
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from cifar_tune.report.figures import MAX_DRAWN, DrawnSearch, costs, history, timeline
from cifar_tune.report.timing import PAUSE_SECONDS
from cifar_tune.report.value_figures import importances, slices
from cifar_tune.trials.goal import Goal, Limits


def test_a_bar_of_the_timeline_shows_how_long_it_is() -> None:
    figure = timeline(DrawnSearch("made", spanning_trials(("a", 0, 10), ("a", 20, 7))))
    assert not isinstance(figure, str)
    (bars,) = figure.data
    assert (list(bars.x), list(bars.base)) == ([10, 7], [0, 20])
    assert list(bars.text) == ["trial 0: start-up, 10.00 s", "trial 1: start-up, 7.00 s"]


def test_what_lies_over_a_limit_is_shown_as_such_and_is_never_the_best() -> None:
    goal = Goal(limits=Limits(num_parameters=250_000))
    trials = [replace(trial, goal=goal) for trial in made_up_trials(["completed"] * 30)]
    search = DrawnSearch("made", trials)
    within = [trial for trial in trials if trial.counts]
    assert 0 < len(within) < len(trials)
    drawn = history(search)
    assert not isinstance(drawn, str)
    assert max(drawn.data[1].y) == max(trial.score or 0 for trial in within)
    figure = costs(search)["num_parameters"]
    assert not isinstance(figure, str)
    shown = {trace.name: len(trace.x) for trace in figure.data}
    assert shown["trials"] + shown["over a limit"] + shown["baseline"] == len(trials)
    assert [line.x0 for line in figure.layout.shapes] == [250_000]


def test_values_of_pruned_trials_and_choices_that_no_trial_sampled_are_shown() -> None:
    trials = [trial for trial in made_up_trials(["pruned"] * 20) if trial.params["optimizer/name"] != "sgd"]
    trials += [t for t in made_up_trials(["completed"] * 6) if t.params["optimizer/name"] != "sgd"][1:]
    figure = slices(DrawnSearch("made", trials))["optimizer/name"]
    assert not isinstance(figure, str)
    pruned, complete, baseline = figure.data
    assert len(pruned.x) == sum(trial.state == "pruned" for trial in trials)
    assert set(complete.x) | set(baseline.x) == {"adam", "adamw"}
    assert list(figure.layout.xaxis.categoryarray) == ["adam", "adamw", "sgd"]
    assert list(figure.layout.xaxis.range) == [-0.5, 2.5]


@pytest.mark.slow
def test_importances_show_how_uncertain_they_are() -> None:
    few = DrawnSearch("made", made_up_trials(["completed"] * 18))
    assert importances(few) == "Only 19 trials are complete; this needs 20."
    figure = importances(DrawnSearch("made", made_up_trials(["completed"] * 60)))
    assert not isinstance(figure, str)
    (bars,) = figure.data
    assert all("(n=" in name for name in bars.y)
    high = [share + above for share, above in zip(bars.x, bars.error_x.array, strict=True)]
    low = [share - below for share, below in zip(bars.x, bars.error_x.arrayminus, strict=True)]
    assert all(0 <= least <= share <= most <= 1 for least, share, most in zip(low, bars.x, high, strict=True))
    assert max(most - least for least, most in zip(low, high, strict=True)) > 0.1, "sixty trials leave much uncertain"
    same = [replace(trial, curve=made_up_trials([])[0].curve) for trial in made_up_trials(["completed"] * 30)]
    assert importances(DrawnSearch("made", same)) == "All complete trials have the same score."


def test_all_trials_that_equal_the_last_of_the_best_tenth_count_among_them() -> None:
    """As the page says of Optuna's importances: here fifteen of forty share the best score, and four are a tenth."""

    def importance(first_four: float) -> float:
        """Of a value by which the first four trials differ, whose score is higher by `first_four`."""
        study = optuna.create_study(direction="maximize")
        for number in range(40):
            spread = (number * 0.37) % 1
            params = {"of four": 0.9 + spread / 10 if number < 4 else spread, "of all": (spread + (number < 15)) / 2}
            score = 0.9 + first_four * (number < 4) if number < 15 else spread / 2
            ranges: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in params}
            study.add_trial(optuna.create_trial(params=params, distributions=ranges, value=score))
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())["of four"]

    assert importance(first_four=0.01) > 0.5
    assert importance(first_four=0) < 0.2


def test_the_band_of_the_history_is_the_margin_around_the_baseline() -> None:
    trials = made_up_trials(["completed"] * 5)
    figure = history(DrawnSearch("made", trials))
    assert not isinstance(figure, str)
    score = trials[0].score or 0.0
    margin = 1.959964 * math.sqrt(2 * score * (1 - score) / 5000)
    band = figure.layout.shapes[0]
    assert (band.y0, band.y1) == pytest.approx((score - margin, score + margin))


def test_there_is_no_pause_between_trials_that_are_not_drawn() -> None:
    search = DrawnSearch("made", spanning_trials(*(("a", 60.0 * number, 60.0) for number in range(8 * MAX_DRAWN))))
    figure = timeline(search)
    assert not isinstance(figure, str)
    assert max(np.diff(sorted(figure.data[0].base))) > PAUSE_SECONDS
    assert len(figure.layout.shapes) == 0
