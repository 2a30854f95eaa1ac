"""Comparisons across searches, and the frames for an analysis of your own."""

import json
import re
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pandas as pd
import pytest
from helpers.command_line import Call
from helpers.made_trials import RECIPE, trial
from make_store import make_store

from cifar_tune import load_trials
from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Value
from cifar_tune.report.comparison import compare, compare_projects, grouped
from cifar_tune.report.findings import Findings
from cifar_tune.report.frames import EPOCH
from cifar_tune.report.leaderboard import leaderboard
from cifar_tune.report.projects import PROJECTS
from cifar_tune.search.space import load_space
from cifar_tune.store import Store
from cifar_tune.training.loop import EpochMetrics
from cifar_tune.trials.goal import Goal, Limits
from cifar_tune.trials.reading import read_record

SPACES = Path(__file__).parents[2] / "search_spaces"


def test_groups_state_their_size_their_best_and_the_interval_of_their_mean() -> None:
    step = RECIPE.replace({"schedule/name": "step", "schedule/every": 3})
    trials = [
        trial(0, 0.5),
        trial(1, 0.69, recipe=step),
        trial(2, 0.71, recipe=step),
        trial(3, 0.9, "pruned", recipe=step, num_epochs=1),
        trial(4, 0.1, "failed"),
    ]
    groups = grouped(leaderboard({"tiny": trials}), "schedule").to_dict("records")
    assert [(row["schedule"], row["trials"], row["completed"], row["best"]) for row in groups] == [
        ("step", 3, 2, 0.71),
        ("constant", 2, 1, 0.5),
    ]
    assert groups[0]["gain"] == pytest.approx(21)
    # The mean of 0.69 and 0.71 has a standard error of 0.01, and 12.706 is the t quantile of one degree of freedom.
    assert (groups[0]["mean_low"], groups[0]["mean"], groups[0]["mean_high"]) == pytest.approx(
        (0.7 - 0.12706, 0.7, 0.7 + 0.12706), abs=1e-5
    )
    assert (groups[1]["mean"], groups[1]["mean_low"]) == (0.5, None)


def test_groups_of_two_data_sets_are_never_one() -> None:
    other = trial(0, 0.9, search="b", recipe=RECIPE.replace({"dataset": "cifar10"}))
    groups = grouped(leaderboard({"a": [trial(0, 0.5, search="a")], "b": [other]}), "model")
    assert list(groups["dataset"]) == ["cifar10", "shapes"]
    assert list(grouped(leaderboard({"b": [other]}), "dataset").columns).count("dataset") == 1


def test_trials_are_grouped_by_two_columns_at_once() -> None:
    step = RECIPE.replace({"schedule/name": "step", "schedule/every": 3})
    trials = [trial(0, 0.5), trial(1, 0.6, recipe=step), trial(2, 0.7, recipe=step.replace({"batch_size": 64}))]
    groups = grouped(leaderboard({"tiny": trials}), "model", "schedule")
    assert groups[["model", "schedule", "trials"]].to_numpy().tolist() == [
        ["mini_resnet", "step", 2],
        ["mini_resnet", "constant", 1],
    ]


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        ("nosuch", "the leaderboard has no column 'nosuch'; "),
        ("project", "the leaderboard has no column 'project'; choose one of "),
        ("val_accuracy", "val_accuracy is a result; "),
        ("rank", "rank is a result; "),
    ],
)
def test_what_cannot_group_is_refused(by: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"--by model,{by}: {re.escape(reason)}"):
        grouped(leaderboard({"tiny": [trial(0)]}), "model", by)


def test_a_misspelt_column_is_answered_with_the_nearest_and_with_the_projects() -> None:
    findings = Findings({"tiny": [trial(0, params={"augment/flip": True})]})
    with pytest.raises(UserError, match="the nearest is project"):
        compare(findings, "projects")
    for name in ("document", "modle"):
        with pytest.raises(UserError, match=f"no column '{name}'; .* For the published projects, use --by project."):
            compare(findings, name)
    for by in ("", "model,"):
        with pytest.raises(UserError, match=f"--by '{by}' lacks a column; write --by model"):
            compare(findings, by)
    assert list(compare(findings, " model, schedule").columns)[2:4] == ["model", "schedule"]


@pytest.mark.parametrize(
    ("space", "name"),
    [
        ("resnet50_linear", "resnet50 linear head"),
        ("resnet50_two_phase", "resnet50 two-phase"),
        ("resnet9", "resnet9 one-cycle"),
        ("resnet50_cifar100", "resnet50 cifar100"),
        ("mini_resnet", "mini-resnet step decay"),
    ],
)
def test_the_recipe_of_each_project_is_known(space: str, name: str) -> None:
    (recipe,) = load_space(SPACES / f"{space}.py").baselines
    assert [project.name for project in PROJECTS if project.is_of(recipe)] == [name]


STEP: dict[str, Value] = {"dataset": "cifar10", "train_images": 900, "schedule/name": "step", "schedule/every": 3}


def test_projects_are_compared_with_every_baseline_of_their_kind() -> None:
    step, other = RECIPE.replace(STEP), RECIPE.replace({"dataset": "cifar10", "train_images": 900})
    mine = [
        trial(0, 0.5, search="mine", recipe=step),
        trial(1, 0.55, search="mine", recipe=other, is_baseline=True),
        trial(2, 0.6, search="mine", recipe=step),
    ]
    rows = compare_projects(Findings({"mine": mine, "other": [trial(0, search="other")]})).to_dict("records")
    assert [row["project"] for row in rows] == [project.name for project in PROJECTS]
    assert (rows[4]["search"], rows[4]["trial"], rows[4]["baseline"], rows[4]["best_trial"]) == (
        "mine",
        0,
        "50.00 %, 1 run",
        "60.00 %, 1 run",
    )
    assert rows[4]["train_images"] == 900
    assert all(pd.isna(row["search"]) for row in rows[:4])


def test_the_gain_of_a_group_is_that_of_its_best_trial_within_limits() -> None:
    limited = Goal(limits=Limits(seconds=1.5))  # a trial of four epochs takes two seconds
    low = [trial(0, 0.1, search="low"), trial(1, 0.3, search="low")]
    high = [trial(0, 0.7, search="high")]
    over = [replace(trial(number, 0.9, search="over"), goal=limited) for number in (0, 1)]
    (row,) = grouped(leaderboard({"low": low, "high": high, "over": over}), "model").to_dict("records")
    assert (row["trials"], row["completed"], row["best"], row["gain"]) == (5, 3, 0.7, 0)


@pytest.fixture(scope="module")
def two_searches(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("two"))
    make_store(store.root, 30, 4, "first", seed=1)
    make_store(store.root, 10, 4, "second", seed=2)
    return store


def test_the_frames_have_every_trial_and_every_epoch(two_searches: Store) -> None:
    trials, epochs = load_trials(store=two_searches.root)
    searches = read_record(two_searches)
    assert len(trials) == 40
    assert len(epochs) == sum(trial.epochs for trials_ in searches.values() for trial in trials_)
    joined = epochs.merge(trials, on=["search", "trial"], suffixes=("_epoch", ""))
    complete = joined[(joined["state"] == "completed") & (joined["epoch"] == joined["epochs"])]
    assert (complete["val_accuracy_epoch"] == complete["val_accuracy"]).all()
    assert set(EPOCH) == {each.name for each in fields(EpochMetrics) if each.default is MISSING}, "of every epoch"
    assert trials["val_accuracy"].dtype == epochs["val_accuracy"].dtype == float
    assert set(load_trials("second", store=two_searches.root).trials["search"]) == {"second"}
    with pytest.raises(UserError, match="no search 'third'"):
        load_trials("third", store=two_searches.root)


@pytest.mark.slow
def test_comparisons_come_in_every_format(two_searches: Store, call: Call, tmp_path: Path) -> None:
    where = ("--store", two_searches.root)
    assert "by schedule" in call("report", "--by", "schedule", *where).stdout
    assert "by model,schedule" in call("report", "--by", "model,schedule", *where).stdout
    rows = json.loads(call("report", "--by", "search", "--format", "json", *where).stdout)
    assert {row["search"]: row["trials"] for row in rows} == {"first": 30, "second": 10}
    assert "88.2 %" in call("report", "first", "--by", "project", "--format", "markdown", *where).stdout
    kept = tmp_path / "kept.csv"
    kept.write_text("mine", encoding="utf-8")
    for arguments in (("--by", "nosuch"), ("--by", "model", "--format", "html"), ("--by", "model", "--trial", 0)):
        refused = call("report", "first", *arguments, "--output", kept, *where)
        assert refused.code == 2
        assert kept.read_text(encoding="utf-8") == "mine"
