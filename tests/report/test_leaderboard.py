"""The leaderboard on hand-made trials: who comes first, who is best, what gains are counted from."""

from dataclasses import replace

import pytest
from helpers.made_trials import RECIPE, by_macro_f1, trial

from cifar_tune.report.comparison import grouped
from cifar_tune.report.leaderboard import leaderboard
from cifar_tune.report.sentences import headline
from cifar_tune.trials.ranking import baseline_score, best_trial, gain_in_points
from cifar_tune.trials.trial import State, Trial


def places(*trials: Trial) -> list[int]:
    """Trial numbers as the leaderboard ranks them."""
    frame = leaderboard({"tiny": trials})
    assert list(frame["rank"]) == list(range(1, len(trials) + 1))
    return [int(number) for number in frame["trial"]]


def test_completed_trials_come_by_score_and_pruned_ones_below_them_all() -> None:
    assert places(
        trial(0, 0.5), trial(1, 0.9, "pruned", num_epochs=2), trial(2, 0.7), trial(3, 0.1), trial(4, 0.95, "pruned")
    ) == [2, 0, 3, 4, 1]


def test_trials_that_stopped_early_are_ranked_among_the_completed_ones() -> None:
    assert places(
        trial(0, 0.5),
        trial(1, 0.6, "stopped early", num_epochs=2),
        trial(2, 0.7),
        trial(3, 0.55, "stopped early", num_epochs=3),
        trial(4, 0.9, "pruned", num_epochs=3),
    ) == [2, 1, 3, 0, 4]


def test_a_baseline_that_stopped_early_is_what_gains_are_counted_from() -> None:
    trials = [trial(0, 0.5, "stopped early", num_epochs=2), trial(1, 0.75), trial(2, 0.8, "stopped early")]
    assert baseline_score(trials) == 0.5
    assert [gain_in_points(each, 0.5) for each in trials] == pytest.approx([0, 25, 30])
    best = best_trial(trials)
    assert best is not None
    assert best.number == 2
    assert headline(trials).startswith(
        "Best of 3 trials: trial 2 with 80.00 %, +30.00 points over the baseline's 50.00 %"
    )


def test_pruned_trials_come_by_how_far_they_got_and_then_by_score() -> None:
    assert places(
        trial(0, 0.6, "pruned", num_epochs=1),
        trial(1, 0.3, "pruned", num_epochs=2),
        trial(2, 0.4, "pruned", num_epochs=2),
    ) == [2, 1, 0]


def test_what_broke_down_comes_last() -> None:
    ends: list[State] = ["failed", "out of memory", "diverged", "pruned", "paused", "completed"]
    states: list[State] = ["running", "interrupted", *ends]
    assert places(*(trial(number, 0.5, state) for number, state in enumerate(states))) == [7, 6, 5, 4, 3, 2, 1, 0]


def test_trials_are_ranked_by_the_score_of_their_search_and_never_among_those_of_another() -> None:
    searches = {"f1": [by_macro_f1(0, 0.9, 0.5), by_macro_f1(1, 0.8, 0.6)], "tiny": [trial(0, 0.7), trial(1, 0.95)]}
    frame = leaderboard(searches)
    columns = ["search", "trial", "rank", "val_accuracy", "val_macro_f1", "gain"]
    rows = frame[columns].astype(object).where(frame[columns].notna(), None).to_numpy().tolist()
    assert [row[:5] for row in rows] == [
        ["tiny", 1, 1, 0.95, None],
        ["tiny", 0, 2, 0.7, None],
        ["f1", 1, 1, 0.8, 0.6],
        ["f1", 0, 2, 0.9, 0.5],
    ]
    assert [row[5] for row in rows] == pytest.approx([25, 0, 10, 0])
    assert "val_macro_f1" not in leaderboard({"tiny": searches["tiny"]})
    assert "score" not in leaderboard({"tiny": searches["tiny"]})
    groups = grouped(frame, "model")
    assert groups["best"].tolist() == [0.6, 0.95]
    assert groups["score"].tolist()[0] == "macro_f1"


def test_the_headline_names_the_score_and_takes_its_sampling_error() -> None:
    sentence = headline([by_macro_f1(0, 0.9, 0.5), by_macro_f1(1, 0.8, 0.6)])
    assert "trial 1 with macro F1 60.00 %, +10.00 points over the baseline's 50.00 %" in sentence
    assert "100 validation images alone is up to ±13.86 points" in sentence  # 1.96 x sqrt(2) x 0.05


def test_equals_keep_their_order() -> None:
    assert places(*(trial(number, 0.5) for number in range(5))) == [0, 1, 2, 3, 4]


def test_the_epochs_of_a_row_are_those_that_were_trained() -> None:
    """Also where `epochs` itself is searched: then the planned number is in the recipe."""
    trials = [
        trial(0, 0.5),
        trial(1, 0.1, "pruned", num_epochs=1, params={"epochs": 8}, recipe=RECIPE.replace({"epochs": 8})),
        trial(2, 0.1, "pruned", num_epochs=2, params={"epochs": 4}),
    ]
    assert {row["trial"]: row["epochs"] for row in leaderboard({"tiny": trials}).to_dict("records")} == {
        0: 4,
        1: 1,
        2: 2,
    }
    assert places(*trials) == [0, 2, 1]


def test_gain_is_counted_from_the_best_baseline() -> None:
    trials = [trial(0, 0.5), trial(1, 0.6, is_baseline=True), trial(2, 0.75), trial(3, 0.55)]
    gains = {row["trial"]: row["gain"] for row in leaderboard({"tiny": trials}).to_dict("records")}
    assert gains == pytest.approx({0: -10, 1: 0, 2: 15, 3: -5})
    assert baseline_score(trials) == 0.6


def test_only_a_completed_baseline_counts() -> None:
    assert baseline_score([trial(0, 0.5, "interrupted"), trial(1, 0.9)]) is None
    assert baseline_score([]) is None


@pytest.mark.parametrize("state", ["pruned", "diverged", "out of memory", "failed", "interrupted", "running"])
def test_a_trial_that_was_not_trained_to_its_end_has_no_gain_and_is_not_best(state: State) -> None:
    assert gain_in_points(trial(1, 0.9, state), 0.5) is None
    assert best_trial([trial(1, 0.9, state)]) is None


def test_the_best_of_equals_is_the_earliest() -> None:
    best = best_trial([trial(2, 0.6), trial(0, 0.5), trial(1, 0.6)])
    assert best is not None
    assert best.number == 1


def test_own_images_of_two_folders_and_two_sizes_are_tasks_of_their_own() -> None:
    own = RECIPE.replace({"dataset": "folder", "num_classes": 3})
    large = own.replace({"image_size": 64})
    kinds = {"a": (own, "0a1b2c3d"), "b": (own, "f0f0f0f0"), "c": (large, "0a1b2c3d"), "d": (RECIPE, "0a1b2c3d")}
    frame = leaderboard(
        {name: [replace(trial(0, search=name, recipe=recipe), data=data)] for name, (recipe, data) in kinds.items()}
    )
    assert list(frame["dataset"]) == ["folder 0a1b2c", "folder 0a1b2c at 64 px", "folder f0f0f0", "shapes"]
    assert list(frame["rank"]) == [1, 1, 1, 1]


def test_ranks_restart_for_every_task_and_gains_stay_within_a_search() -> None:
    other = RECIPE.replace({"dataset": "cifar10", "train_images": None})
    more = RECIPE.replace({"train_images": 640})
    searches = {
        "a": [trial(0, 0.5, search="a"), trial(1, 0.6, search="a")],
        "b": [trial(0, 0.8, search="b", recipe=other), trial(1, 0.9, search="b", recipe=other)],
        "c": [trial(0, 0.55, search="c"), trial(1, 0.575, search="c")],
        "d": [trial(0, 0.95, search="d", recipe=more)],
    }
    rows = leaderboard(searches).to_dict("records")
    places = {
        task: [
            (row["rank"], row["search"], row["trial"]) for row in rows if (row["dataset"], row["train_images"]) == task
        ]
        for task in [("shapes", 64), ("shapes", 640), ("cifar10", None)]
    }
    assert places == {
        ("shapes", 64): [(1, "a", 1), (2, "c", 1), (3, "c", 0), (4, "a", 0)],
        ("shapes", 640): [(1, "d", 0)],
        ("cifar10", None): [(1, "b", 1), (2, "b", 0)],
    }
    gains = {(row["search"], row["trial"]): row["gain"] for row in rows}
    assert gains == pytest.approx(
        {("a", 0): 0, ("a", 1): 10, ("b", 0): 0, ("b", 1): 10, ("c", 0): 0, ("c", 1): 2.5, ("d", 0): 0}
    )
