"""The table of the leaderboard's columns: what each row holds, how it is written, and who shows it."""

import csv
import json
import re
from io import StringIO

import pytest
from helpers.made_trials import RECIPE, conditional_trials, trial
from rich.console import Console

from cifar_tune.recipe.recipe import Recipe, Value
from cifar_tune.report.columns import (
    LEADERBOARD,
    TrialColumn,
    constant_columns,
    format_value,
    searched_names,
    varying_columns,
)
from cifar_tune.report.findings import Findings
from cifar_tune.report.leaderboard import leaderboard
from cifar_tune.report.page import render_page
from cifar_tune.report.text import as_table, format_report
from cifar_tune.wording import format_bytes

MEMORY = "peak_memory"
WITH_MEMORY = (
    *LEADERBOARD,
    TrialColumn(MEMORY, "peak\nmemory", format_bytes, value=lambda ranked: ranked.trial.facts.get(MEMORY)),
)


def test_a_column_that_is_added_to_the_table_is_shown_everywhere() -> None:
    findings = Findings({"tiny": [trial(0, 0.6, facts={MEMORY: 2**30}), trial(1, 0.5, facts={MEMORY: 3 * 2**29})]})
    rows = list(csv.DictReader(StringIO(format_report(findings, "csv", WITH_MEMORY))))
    assert [row[MEMORY] for row in rows] == ["1073741824", "1610612736"]
    assert [row[MEMORY] for row in json.loads(format_report(findings, "json", WITH_MEMORY))] == [2**30, 3 * 2**29]

    frame = leaderboard(findings.searches, columns=WITH_MEMORY)
    console = Console(file=StringIO(), width=200)
    console.print(as_table(frame, "tiny", 200, columns=WITH_MEMORY))
    assert isinstance(console.file, StringIO)
    assert re.search(r"memory *\n.* 1\.0 GiB *\n.* 1\.5 GiB", console.file.getvalue())

    page = render_page(findings, WITH_MEMORY)
    assert '<button type="button">peak memory</button>' in page
    assert '<td class="number" data-value="1610612736.0">1.5 GiB</td>' in page


def test_a_json_row_has_the_columns_the_searched_values_the_recipe_and_the_run() -> None:
    rows = json.loads(format_report(Findings({"tiny": conditional_trials()}), "json"))
    row = next(row for row in rows if row["trial"] == 1)
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
    trials = [trial(0, 0.5), trial(1, None, "failed", recipe=RECIPE.replace({"train_images": None}))]
    rows = json.loads(format_report(Findings({"tiny": trials}), "json"))
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


def test_names_are_unique_and_a_recipe_cannot_shadow_them() -> None:
    names = [column.name for column in LEADERBOARD]
    assert len(set(names)) == len(names)
    (row,) = leaderboard({"tiny": [trial(0, params={"epochs": 8})]}).to_dict("records")
    assert row["epochs"] == 4, "the epochs that were trained"


def test_searched_values_are_what_no_column_is_named_after() -> None:
    frame = leaderboard({"tiny": [trial(0, params={"optimizer/lr": 0.1, "epochs": 4, "augment/flip": True})]})
    assert searched_names(frame) == ["optimizer/lr", "augment/flip"]


def test_a_column_is_constant_where_every_row_has_the_same_value_and_none_lacks_it() -> None:
    step = RECIPE.replace({"schedule/name": "step", "schedule/every": 3})
    costs = {"num_parameters": 77_850}
    trials = [trial(0, facts={**costs, "num_macs": 1}), trial(1, 0.6, recipe=step, facts=costs)]
    frame = leaderboard({"tiny": trials})
    constant = [column.name for column in constant_columns(frame)]
    assert constant == ["search", "state", "model", "optimizer", "dataset", "train_images", "num_parameters"]
    bare = leaderboard({"tiny": [*trials, trial(2)]})
    assert "num_parameters" not in [column.name for column in constant_columns(bare)]
    assert constant_columns(frame.head(0)) == []


def test_what_varies_is_shown_and_what_is_empty_or_said_already_is_not() -> None:
    params = {"schedule/name": "constant", "optimizer/lr": 0.1}
    frame = leaderboard({"tiny": [trial(0, params=params), trial(1, params=params | {"optimizer/lr": 0.2})]})
    names = [column.name for column in varying_columns(frame)]
    assert names == ["rank", "trial", "val_accuracy", "gain", "verdict", "epochs", "seconds", "optimizer/lr"]
    without_gain = leaderboard({"tiny": [trial(1, None, "failed")]})
    assert {"val_accuracy", "gain"} <= {column.name for column in varying_columns(without_gain)}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("val_accuracy", 0.90514, "0.9051"),
        ("gain", 1.5, "+1.50"),
        ("gain", -0.25, "-0.25"),
        ("num_parameters", 6573130, "6,573,130"),
        ("num_parameters", 6573130.0, "6,573,130"),
        ("num_macs", 31_113_856, "31.1 M"),
        ("seconds", 12.34, "12.3"),
        ("optimizer/lr", 0.000123456, "0.0001235"),
        ("schedule/name", "step", "step"),
        ("optimizer/nesterov", True, "True"),
        ("optimizer/lr", None, "-"),
        ("gain", float("nan"), "-"),
    ],
)
def test_cells_are_written_as_people_write_them(name: str, value: Value, text: str) -> None:
    assert format_value(name, value) == text
