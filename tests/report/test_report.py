"""The leaderboard, on hand-made trials and in every format."""

import csv
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from helpers.made_trials import RECIPE, trial
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_tune.recipe.recipe import Recipe
from cifar_tune.report.columns import LEADERBOARD
from cifar_tune.report.findings import Findings
from cifar_tune.report.leaderboard import leaderboard
from cifar_tune.report.sentences import headline, told_difference
from cifar_tune.report.text import as_table, describe_trial, format_report, render
from cifar_tune.search.space import load_space
from cifar_tune.trials.ranking import baseline_accuracy, best_trial, gain_in_points
from cifar_tune.trials.trial import State, Trial

SPACE = """
from cifar_tune import Recipe

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.01, "weight_decay": 0.001},
    schedule={"name": "one-cycle"}, grad_clip={"name": "value", "limit": 0.3}, epochs=4, batch_size=32, train_images=64,
)

def space(trial):
    optimizer = trial.suggest_categorical("optimizer/name", ["adam", "sgd"])
    schedule = trial.suggest_categorical("schedule/name", ["one-cycle", "step", "cosine"])
    options = {}
    if schedule == "step":
        options["every"] = trial.suggest_int("schedule/step/every", 1, 4)
    if schedule == "cosine":
        options["warmup"] = trial.suggest_float("schedule/cosine/warmup", 0.0, 0.5)
    return Recipe(
        dataset="shapes", model={"name": "mini_resnet"},
        optimizer={
            "name": optimizer,
            "lr": trial.suggest_float(f"optimizer/{optimizer}/lr", 1e-3, 1e-1, log=True),
            **({"weight_decay": 0.001} if optimizer == "adam" else {"nesterov": True}),
        },
        schedule={"name": schedule, **options},
        grad_clip={"name": "value", "limit": 0.3} if schedule == "one-cycle" else {"name": "none"},
        augment={"flip": trial.suggest_categorical("augment/flip", [True, False])},
        epochs=4, batch_size=32, train_images=64,
    )
"""


def conditional_trials() -> list[Trial]:
    """One branch has values that the other lacks."""
    step = RECIPE.replace({"schedule/name": "step", "schedule/every": 3})
    adam = RECIPE.replace({"optimizer/name": "adam", "optimizer/lr": 0.001})
    return [
        trial(0, 0.5, params={"optimizer/name": "sgd", "optimizer/sgd/lr": 0.1, "schedule/name": "constant"}),
        trial(
            1,
            0.6,
            recipe=step,
            params={"optimizer/name": "sgd", "optimizer/sgd/lr": 0.2, "schedule/step/every": 3, "augment/flip": True},
            facts={"num_parameters": 77_850},
            run_id="abc",
        ),
        trial(2, 0.4, recipe=adam, params={"optimizer/name": "adam", "optimizer/adam/lr": 0.001}),
    ]


SEARCHES: dict[str, list[Trial]] = {
    "no trials": [],
    "one trial": [trial(0)],
    "one that runs": [trial(0, None, "running")],
    "all completed": [trial(0, 0.5), trial(1, 0.6)],
    "all pruned": [trial(n, 0.2 + n / 100, "pruned", num_epochs=1) for n in range(3)],
    "all stopped early": [trial(n, 0.2 + n / 100, "stopped early", num_epochs=2) for n in range(3)],
    "all diverged": [trial(n, None, "diverged") for n in range(3)],
    "all failed": [trial(n, None, "failed", error="Traceback\nKeyError: 'x'") for n in range(3)],
    "all failed after an epoch": [trial(n, 0.3, "failed", num_epochs=1) for n in range(3)],
    "all interrupted": [trial(n, None, "interrupted") for n in range(3)],
    "conditional": conditional_trials(),
    "long names": [trial(0, 0.5, search="a" * 100, params={"optimizer/" + "x" * 80: 1.0})],
}
COLUMNS = [column.name for column in LEADERBOARD if column.applies is None]
every_search = pytest.mark.parametrize("trials", SEARCHES.values(), ids=SEARCHES)


def places(*trials: Trial) -> list[int]:
    """Trial numbers as the leaderboard ranks them."""
    frame = leaderboard({"tiny": trials})
    assert list(frame["rank"]) == list(range(1, len(trials) + 1))
    return [int(number) for number in frame["trial"]]


def documents(searches: Mapping[str, Sequence[Trial]]) -> list[dict[str, Any]]:
    found = json.loads(format_report(Findings(searches), "json"), parse_constant=no_number)
    assert isinstance(found, list)
    return found


def no_number(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def printed(parts: Sequence[Table | Text], width: int = 200) -> str:
    console = Console(file=StringIO(), width=width)
    for part in parts:
        console.print(part, highlight=False)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


# Order, ranks and gains


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
    assert baseline_accuracy(trials) == 0.5
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
    states: list[State] = ["running", "interrupted", "failed", "out of memory", "diverged", "pruned", "completed"]
    assert places(*(trial(number, 0.5, state) for number, state in enumerate(states))) == [6, 5, 4, 3, 2, 1, 0]


def test_equals_keep_their_order() -> None:
    assert places(*(trial(number, 0.5) for number in range(5))) == [0, 1, 2, 3, 4]


def test_the_epochs_of_a_row_are_those_that_were_trained() -> None:
    """Also where `epochs` itself is searched: then the planned number is in the recipe."""
    trials = [
        trial(0, 0.5),
        trial(1, 0.1, "pruned", num_epochs=1, params={"epochs": 8}, recipe=RECIPE.replace({"epochs": 8})),
        trial(2, 0.1, "pruned", num_epochs=2, params={"epochs": 4}),
    ]
    assert {row["trial"]: row["epochs"] for row in documents({"tiny": trials})} == {0: 4, 1: 1, 2: 2}
    assert places(*trials) == [0, 2, 1]


def test_gain_is_counted_from_the_best_baseline() -> None:
    trials = [trial(0, 0.5), trial(1, 0.6, is_baseline=True), trial(2, 0.75), trial(3, 0.55)]
    gains = {row["trial"]: row["gain"] for row in documents({"tiny": trials})}
    assert gains == pytest.approx({0: -10, 1: 0, 2: 15, 3: -5})
    assert baseline_accuracy(trials) == 0.6


def test_only_a_completed_baseline_counts() -> None:
    assert baseline_accuracy([trial(0, 0.5, "interrupted"), trial(1, 0.9)]) is None
    assert baseline_accuracy([]) is None


@pytest.mark.parametrize("state", ["pruned", "diverged", "out of memory", "failed", "interrupted", "running"])
def test_a_trial_that_was_not_trained_to_its_end_has_no_gain_and_is_not_best(state: State) -> None:
    assert gain_in_points(trial(1, 0.9, state), 0.5) is None
    assert best_trial([trial(1, 0.9, state)]) is None


def test_the_best_of_equals_is_the_earliest() -> None:
    found = best_trial([trial(2, 0.6), trial(0, 0.5), trial(1, 0.6)])
    assert found is not None
    assert found.number == 1


def test_ranks_restart_for_every_task_and_gains_stay_within_a_search() -> None:
    other = RECIPE.replace({"dataset": "cifar10", "train_images": None})
    more = RECIPE.replace({"train_images": 640})
    searches = {
        "a": [trial(0, 0.5, search="a"), trial(1, 0.6, search="a")],
        "b": [trial(0, 0.8, search="b", recipe=other), trial(1, 0.9, search="b", recipe=other)],
        "c": [trial(0, 0.55, search="c"), trial(1, 0.575, search="c")],
        "d": [trial(0, 0.95, search="d", recipe=more)],
    }
    rows = documents(searches)
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


# Formats


def test_a_json_row_has_the_columns_the_searched_values_the_recipe_and_the_run() -> None:
    row = next(row for row in documents({"tiny": conditional_trials()}) if row["trial"] == 1)
    assert row == {
        "rank": 1,
        "search": "tiny",
        "trial": 1,
        "state": "completed",
        "model": "mini_resnet",
        "schedule": "step",
        "optimizer": "sgd",
        "dataset": "shapes",
        "train_images": 64,
        "val_accuracy": 0.6,
        "gain": pytest.approx(10),
        "verdict": "unconfirmed",
        "epochs": 4,
        "seconds": 2.0,
        "let_through": None,
        "num_parameters": 77_850,
        "num_macs": None,
        "optimizer/name": "sgd",
        "optimizer/sgd/lr": 0.2,
        "schedule/name": None,
        "schedule/step/every": 3,
        "augment/flip": True,
        "optimizer/adam/lr": None,
        "recipe": conditional_trials()[1].recipe.model_dump(mode="json"),
        "mlflow_run_id": "abc",
    }
    assert Recipe.model_validate(row["recipe"]) == conditional_trials()[1].recipe


def test_what_is_missing_is_null() -> None:
    rows = documents({"tiny": [trial(0, 0.5), trial(1, None, "failed", recipe=RECIPE.replace({"train_images": None}))]})
    failed = next(row for row in rows if row["trial"] == 1)
    assert {name for name, value in failed.items() if value is None} == {
        "val_accuracy",
        "gain",
        "verdict",
        "let_through",
        "num_parameters",
        "num_macs",
        "train_images",
        "mlflow_run_id",
    }


def test_integers_stay_integers_where_another_row_has_none() -> None:
    rows = documents({"tiny": [*conditional_trials(), trial(3, recipe=RECIPE.replace({"train_images": None}))]})
    row = next(row for row in rows if row["trial"] == 1)
    assert {name: str(row[name]) for name in ("schedule/step/every", "num_parameters", "train_images")} == {
        "schedule/step/every": "3",
        "num_parameters": "77850",
        "train_images": "64",
    }
    (line,) = [
        row
        for row in csv.DictReader(StringIO(format_report(Findings({"tiny": conditional_trials()}), "csv")))
        if row["trial"] == "1"
    ]
    assert (line["num_parameters"], line["schedule/step/every"]) == ("77850", "3")


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_floats_keep_all_their_digits(kind: str) -> None:
    lr, accuracy = 0.1 + 0.2, 2 / 3
    text = format_report(
        Findings({"tiny": [trial(0, accuracy, params={"optimizer/lr": lr})]}), "json" if kind == "json" else "csv"
    )
    row = json.loads(text)[0] if kind == "json" else next(csv.DictReader(StringIO(text)))
    assert float(row["optimizer/lr"]) == lr
    assert float(row["val_accuracy"]) == accuracy


@every_search
def test_json_csv_and_markdown_parse_back_to_one_row_per_trial(trials: list[Trial]) -> None:
    searches = {"tiny": trials}
    rows = documents(searches)
    numbers = [row["trial"] for row in rows]
    assert sorted(numbers) == [trial.number for trial in trials]
    columns = [name for name in rows[0] if name not in ("recipe", "mlflow_run_id")] if rows else COLUMNS
    assert columns[: len(COLUMNS)] == COLUMNS

    read = csv.DictReader(StringIO(format_report(Findings(searches), "csv")))
    assert [int(row["trial"]) for row in read] == numbers
    assert read.fieldnames == columns

    head, rule, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in format_report(Findings(searches), "markdown").splitlines()
        if line.startswith("|")
    ]
    assert head == columns
    assert set(rule) == {"---"}
    assert {len(line) for line in [rule, *lines]} == {len(head)}
    assert [int(line[head.index("trial")]) for line in lines] == numbers


@every_search
def test_a_csv_is_read_by_pandas_as_the_same_leaderboard(trials: list[Trial]) -> None:
    read = pd.read_csv(StringIO(format_report(Findings({"tiny": trials}), "csv")))
    assert list(read.columns) == list(leaderboard({"tiny": trials}).columns)
    scores = {trial.number: trial.val_accuracy for trial in trials}
    assert {
        number: None if pd.isna(score) else score
        for number, score in zip(read["trial"], read["val_accuracy"], strict=True)
    } == scores


@every_search
@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_search_renders_within_the_terminal(trials: list[Trial], width: int) -> None:
    text = printed(render(Findings({"tiny": trials}), width), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert headline(trials) in " ".join(text.split())


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_shows_scores_and_gains_whole(width: int) -> None:
    text = printed(render(Findings({"tiny": conditional_trials()}), width), width)
    for said in ("0.6000", "0.5000", "0.4000", "+10.00", "-10.00", "+0.00", "step", "constant", "adam"):
        assert said in text
    assert "…" not in text, "something is cut off"
    assert ("77,850" in text) == (width == 200), "what matters least is left out first"


def test_searched_values_that_do_not_fit_are_named() -> None:
    narrow = " ".join(printed(render(Findings({"tiny": conditional_trials()}), 60), 60).split())
    assert "not shown for want of width: " in narrow
    assert "optimizer/adam/lr" in narrow
    assert "not shown" not in printed(render(Findings({"tiny": conditional_trials()}), 200))


def test_a_limit_shows_the_best_alone() -> None:
    trials = [trial(number, number / 100) for number in range(20)]
    text = printed([as_table(leaderboard({"tiny": trials}), "tiny", 80, limit=3)], 80)
    assert re.findall(r"0\.\d{4}", text) == ["0.1900", "0.1800", "0.1700"]


def test_each_task_has_a_table_and_each_search_a_headline() -> None:
    searches = {
        "a": [trial(0, 0.5, search="a")],
        "b": [trial(0, 0.8, search="b", recipe=RECIPE.replace({"dataset": "cifar10"}))],
    }
    parts = render(Findings(searches), 200)
    assert [type(part) for part in parts] == [Table, Table, Text, Text]
    assert "a: Best of 1 trial: trial 0" in printed(parts)
    assert "b: Best of 1 trial: trial 0" in printed(parts)


# Sentences


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ([], "No trial has completed."),
        ([trial(0, None, "failed"), trial(1, 0.9, "pruned")], "No trial has completed: 1 failed, 1 pruned."),
        (
            [trial(0, None, "failed"), trial(1, 0.6)],
            "Best of 2 trials (1 complete): trial 1 with 60.00 %; the baseline has not completed, so there is no gain "
            "to state.",
        ),
        (
            [trial(0, 0.5), trial(1, 0.5), trial(2, 0.4)],
            "Best of 3 trials: trial 0 with 50.00 %, which is the baseline: no trial beat it.",
        ),
        (
            [trial(0, 0.5), trial(1, 0.62345)],
            # Two shares of 500 images: 1.96 * sqrt((0.62345 * 0.37655 + 0.25) / 500) = 0.0610
            "Best of 2 trials: trial 1 with 62.34 %, +12.34 points over the baseline's 50.00 % "
            "(one run each, unconfirmed: the choice of the 500 images alone leaves up to ±6.10 open, at 95 %).",
        ),
        (
            [trial(0, 0.5), trial(1, 0.4), trial(2, 0.5, "interrupted")],
            "Best of 3 trials (2 complete, 1 interrupted): trial 0 with 50.00 %, which is the baseline: no trial beat "
            "it.",
        ),
    ],
    ids=["no trials", "none completed", "no baseline", "baseline is best", "gain", "interrupted"],
)
def test_the_headline_states_the_best_its_gain_and_over_what(trials: list[Trial], said: str) -> None:
    assert headline(trials) == said


def test_what_the_best_trial_has_that_the_baseline_has_not_is_told() -> None:
    adam = RECIPE.replace({"optimizer/name": "adam", "optimizer/lr": 0.00123456, "batch_size": 64})
    params = {"optimizer/name": "adam", "optimizer/adam/lr": 0.00123456, "label_smoothing": 0.0}
    best = trial(1, 0.7, recipe=adam, params=params)
    said = "Unlike the baseline it has optimizer/name=adam (sgd), optimizer/lr=0.00123 (0.1)."
    assert told_difference([trial(0, 0.5), best]) == said, "of what was searched"
    assert told_difference([trial(0, 0.5)]) == told_difference([]) == ""
    near = trial(1, 0.7, recipe=RECIPE.replace({"optimizer/lr": 0.10001}), params={"optimizer/lr": 0.10001})
    assert told_difference([trial(0, 0.5), near]) == "Unlike the baseline it has optimizer/lr=0.10001 (0.1)."


def test_one_trial_whole_has_its_result_recipe_curve_facts_and_error() -> None:
    whole = trial(
        1,
        0.62,
        params={"optimizer/sgd/lr": 0.1},
        facts={"num_parameters": 77_850, "device": "cpu"},
        run_id="abc",
        error="Traceback: [/x] KeyError",
    )
    text = printed(describe_trial([trial(0, 0.5), whole], 1, Path("space.py")))
    for said in (
        "tiny trial 1: completed, 62.00 %, +12.00 points over the baseline",
        "4 of 4 epochs in 2.0 s",
        "77,850",
        "cpu",
        "abc",
        "Traceback: [/x] KeyError",
    ):
        assert said in text
    assert re.search(r"optimizer/lr +0\.1 +searched", text)
    assert re.search(r"optimizer/momentum +0\.9 *\n", text)
    assert len(re.findall(r"^ +\d +2 +1\.5 +0\.62 +0\.5", text, re.MULTILINE)) == 4


def test_one_trial_says_at_which_epoch_it_was_let_through() -> None:
    text = printed(describe_trial([trial(0, facts={"let_through_at_epoch": 2})], 0, Path("space.py")))
    assert "4 of 4 epochs in 2.0 s, let through at epoch 2\n" in text


@every_search
def test_every_trial_can_be_described(trials: list[Trial]) -> None:
    for each in trials:
        text = printed(describe_trial(trials, each.number, Path("space.py")))
        assert f"trial {each.number}: " in text
        assert "cifar-tune run space.py --debug" in text


# The command that runs a trial alone


def settings_of(trials: Sequence[Trial], number: int, space: Path) -> dict[str, str]:
    """What the command's --set options say."""
    text = str(describe_trial(trials, number, space)[-1])
    command = shlex.split(text.split("\n", 1)[1])
    assert command[:4] == ["cifar-tune", "run", str(space), "--debug"]
    assert all(option.startswith("--set=") for option in command[4:])
    return dict(option.removeprefix("--set=").split("=", 1) for option in command[4:])


def sampled(path: Path, settings: Mapping[str, str], num_trials: int = 12) -> list[Trial]:
    """What a search of the file runs: its baseline and random trials."""
    space = load_space(path, settings)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    recipes = [*space.baselines, *(space.sample(study.ask()) for _ in range(num_trials))]
    return [trial(number, recipe=recipe) for number, recipe in enumerate(recipes)]


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    path = tmp_path / "a space.py"
    path.write_text(SPACE, encoding="utf-8")
    return path


def test_the_command_of_a_trial_rebuilds_its_recipe(space_file: Path) -> None:
    trials = sampled(space_file, {})
    assert settings_of(trials, 0, space_file) == {}
    for each in trials:
        settings = settings_of(trials, each.number, space_file)
        assert trials[0].recipe.replace(settings) == each.recipe
        assert load_space(space_file, settings).baselines[0] == each.recipe


def test_the_command_of_a_trial_repeats_the_settings_of_its_search(space_file: Path) -> None:
    trials = sampled(space_file, {"epochs": "2", "train_images": "none"}, num_trials=2)
    for each in trials:
        assert load_space(space_file, settings_of(trials, each.number, space_file)).baselines[0] == each.recipe


def test_the_command_of_a_trial_keeps_the_phases_that_its_search_had() -> None:
    """`--set epochs` alone would move the end of the first one."""
    path = Path(__file__).parents[2] / "search_spaces" / "resnet50_two_phase.py"
    for each in (trials := sampled(path, {"finetune/head_epochs": "5"}, num_trials=4)):
        assert load_space(path, settings_of(trials, each.number, path)).baselines[0] == each.recipe
