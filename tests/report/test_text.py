"""The report as csv, json, markdown and a terminal's tables, on hand-made trials."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import pandas as pd
import pytest
from helpers.made_trials import RECIPE, SEARCHES, conditional_trials, printed, trial
from rich.table import Table
from rich.text import Text

from cifar_tune.report.columns import LEADERBOARD
from cifar_tune.report.findings import Findings
from cifar_tune.report.leaderboard import leaderboard
from cifar_tune.report.sentences import headline
from cifar_tune.report.text import as_table, format_report, render
from cifar_tune.trials.trial import Trial

COLUMNS = [column.name for column in LEADERBOARD if column.applies is None]
every_search = pytest.mark.parametrize("trials", SEARCHES.values(), ids=SEARCHES)


def json_rows(searches: Mapping[str, Sequence[Trial]]) -> list[dict[str, Any]]:
    """The leaderboard as json has it, which must be strict JSON."""
    rows = json.loads(format_report(Findings(searches), "json"), parse_constant=refuse_constant)
    assert isinstance(rows, list)
    return rows


def refuse_constant(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_integers_stay_integers_where_another_row_has_none() -> None:
    rows = json_rows({"tiny": [*conditional_trials(), trial(3, recipe=RECIPE.replace({"train_images": None}))]})
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
    rows = json_rows(searches)
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
    scores = {trial.number: trial.accuracy for trial in trials}
    assert {
        number: None if pd.isna(score) else score
        for number, score in zip(read["trial"], read["val_accuracy"], strict=True)
    } == scores


# In a terminal


@every_search
@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_search_renders_within_the_terminal(trials: list[Trial], width: int) -> None:
    text = printed(render(Findings({"tiny": trials}), width), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert headline(trials) in " ".join(text.split())


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_shows_scores_and_gains_whole(width: int) -> None:
    text = printed(render(Findings({"tiny": conditional_trials()}), width), width)
    for text_of_cell in ("0.6000", "0.5000", "0.4000", "+10.00", "-10.00", "+0.00", "step", "constant", "adam"):
        assert text_of_cell in text
    assert "…" not in text, "something is cut off"
    assert ("77,850" in text) == (width == 200), "what matters least is left out first"


def test_searched_values_that_do_not_fit_are_named() -> None:
    narrow = " ".join(printed(render(Findings({"tiny": conditional_trials()}), 60), 60).split())
    assert "columns that do not fit: " in narrow
    assert "optimizer/adam/lr" in narrow
    assert "do not fit" not in printed(render(Findings({"tiny": conditional_trials()}), 200))


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
