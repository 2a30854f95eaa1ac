"""Stores that earlier versions made: people keep theirs when they take a new version, and go on with their searches.

tests/stores/make_store.py makes one of each version, with what that version's own report said of it.
"""

import json
import sqlite3
import tarfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.command_line import Answer, Call
from PIL import Image

from cifar_tune import load_trials

ARCHIVES = sorted(Path(__file__).parent.glob("stores/version-*.tar.xz"))
ONE_AT_A_TIME = ("--cpus-per-trial", 1, "--max-concurrent", 1)


@dataclass(frozen=True)
class OldStore:
    """A store of an earlier version, unpacked, and the rows that it reported."""

    root: Path
    rows: list[dict[str, Any]]

    def go_on(self, call: Call, search: str, *arguments: object) -> Answer:
        """Run a search again from the store's own copy of its space file, as who has no other copy left would."""
        space = self.root / "searches" / search / "space.py"
        return call("run", space, "--name", search, "--store", self.root, *ONE_AT_A_TIME, *arguments)

    def expected(self, search: str) -> dict[int, dict[str, Any]]:
        """The rows of a search by trial number."""
        return {row["trial"]: row for row in self.rows if row["search"] == search}

    def reported(self, call: Call, search: str) -> dict[int, dict[str, Any]]:
        """The same rows as today's version reports them."""
        answer = call("report", search, "--store", self.root, "--format", "json")
        assert answer.code == 0, answer.stderr
        return {row["trial"]: row for row in json.loads(answer.stdout)}

    def epochs(self, search: str, trial: int) -> pd.DataFrame:
        """The learning curve of a trial, as today's version loads it."""
        epochs = load_trials(search, store=self.root).epochs
        return epochs[epochs["trial"] == trial].reset_index(drop=True)


@pytest.fixture(params=ARCHIVES, ids=lambda archive: archive.name.removesuffix(".tar.xz"))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> OldStore:
    """A copy of each that a test may change."""
    root = tmp_path / "store"
    with tarfile.open(request.param) as packed:
        packed.extractall(root, filter="data")
    expectation = request.param.with_name(request.param.name.replace(".tar.xz", ".json"))
    return OldStore(root, json.loads(expectation.read_text(encoding="utf-8")))


def without_gains(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial shows by itself, whatever others do."""
    return {name: value for name, value in row.items() if name not in ("gain", "verdict", "confirmed_gain")}


def test_there_are_old_stores() -> None:
    assert ARCHIVES


def test_its_report_says_what_it_said(old: OldStore, call: Call) -> None:
    answer = call("report", "--store", old.root, "--format", "json")
    assert answer.code == 0, answer.stderr
    for row, expected in zip(json.loads(answer.stdout), old.rows, strict=True):
        assert {name: row[name] for name in expected} == pytest.approx(expected)
    states = {row["state"] for row in old.rows}
    assert states == {"completed", "stopped early", "pruned", "diverged", "interrupted"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "csv", "markdown", "html"])
def test_every_kind_of_report_has_all_its_trials(old: OldStore, call: Call, kind: str) -> None:
    answer = call("report", "--store", old.root, "--format", kind)
    assert answer.code == 0, answer.stderr
    for search in ("finished", "interrupted"):
        assert answer.stdout.count(search) >= len(old.expected(search))


@pytest.mark.slow
def test_each_trial_is_shown_whole(old: OldStore, call: Call) -> None:
    for row in old.rows:
        answer = call("report", row["search"], "--trial", row["trial"], "--store", old.root)
        assert answer.code == 0, answer.stderr
        assert "optimizer/lr" in answer.stdout


@pytest.mark.slow
def test_its_interrupted_search_goes_on_from_the_saved_state(old: OldStore, call: Call) -> None:
    (number,) = (n for n, row in old.expected("interrupted").items() if row["state"] == "interrupted")
    before = old.epochs("interrupted", number)
    answer = old.go_on(call, "interrupted")
    assert answer.code == 0, answer.stderr
    row, after = old.reported(call, "interrupted")[number], old.epochs("interrupted", number)
    assert row["state"] == "completed"
    assert row["epochs"] == row["recipe"]["epochs"] == len(after) > len(before) > 0
    assert list(after["epoch"]) == list(range(1, len(after) + 1))
    pd.testing.assert_frame_equal(after[: len(before)], before, check_exact=True)  # their times too: none was repeated


def test_its_complete_search_is_complete(old: OldStore, call: Call) -> None:
    answer = old.go_on(call, "finished")
    assert answer.code == 0, answer.stderr
    assert "finished is complete" in answer.stderr
    assert "Starting" not in answer.stderr


@pytest.mark.slow
def test_its_complete_search_goes_on_to_more_trials(old: OldStore, call: Call) -> None:
    expected = old.expected("finished")
    answer = old.go_on(call, "finished", "--num-trials", len(expected) + 1)
    assert answer.code == 0, answer.stderr
    rows = old.reported(call, "finished")
    assert sorted(rows) == list(range(len(expected) + 1))
    for number, row in expected.items():
        kept = without_gains(row)
        assert {name: rows[number][name] for name in kept} == pytest.approx(kept)
    assert rows[len(expected)]["state"] in {"completed", "stopped early", "pruned", "diverged"}
    assert runs_in_mlflow(old.root, "finished") == {"parent": 1, "trials": len(expected) + 1}
    assert len(list(old.root.glob("artifacts/shapes/*/artifacts/report.html"))) == 1


def runs_in_mlflow(root: Path, search: str) -> dict[str, int]:
    """How many runs MLflow shows of a search as a whole, and of its trials."""
    query = (
        "SELECT count(trial.value), count(*) FROM tags search LEFT JOIN tags trial "
        "ON trial.run_uuid = search.run_uuid AND trial.key = 'cifar_tune.trial' "
        "WHERE search.key = 'cifar_tune.search' AND search.value = ?"
    )
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        ((num_trials, num_runs),) = connection.execute(query, (search,))
    return {"parent": num_runs - num_trials, "trials": num_trials}


def test_its_weights_predict(old: OldStore, call: Call, tmp_path: Path) -> None:
    best = max(old.expected("finished").values(), key=lambda row: row["gain"] or 0.0)
    weights = old.root / "searches" / "finished" / "trials" / f"{best['trial']:05d}" / "weights.safetensors"
    Image.new("RGB", (40, 60), (200, 30, 40)).save(tmp_path / "red.png")
    answer = call("predict", weights, tmp_path / "red.png", "--top", 10)
    assert answer.code == 0, answer.stderr
    told = answer.stdout.strip().removeprefix(f"{tmp_path / 'red.png'}: ").split(", ")
    assert len(told) == 10
    assert sum(float(part.split()[-2]) for part in told) == pytest.approx(100, abs=1)


@pytest.mark.slow
def test_its_confirmation_is_told_and_not_repeated(old: OldStore, call: Call) -> None:
    (judged,) = (row for row in old.rows if row["confirmed_gain"] is not None)
    told = f"{judged['verdict']}, {judged['confirmed_gain']:+.2f} points"
    answer = call("confirm", "finished", "--top", 1, "--seeds", 2, "--store", old.root)
    assert answer.code == 0, answer.stderr
    assert told in answer.stdout
    assert "Starting" not in answer.stderr
    report = " ".join(call("report", "finished", "--store", old.root).stdout.split())
    assert judged["verdict"] in report
    assert "share one validation split" in report
