"""`evaluate` through the command line: real Ray, Optuna and MLflow on tiny trials of the built-in data set."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Call, Start, wait_until
from image_files import one_shard, random_images, write_shard
from mlflow.tracking import MlflowClient

from cifar_tune import shapes
from cifar_tune.classifier import load_classifier
from cifar_tune.errors import UserError
from cifar_tune.evaluation import (
    LOGITS,
    Outcome,
    choose_winner,
    confusion,
    hardest_pairs,
    read_evaluation,
)
from cifar_tune.evaluation_page import class_report, draw_confusion
from cifar_tune.search.openings import OPENINGS, note_opening, read_openings
from cifar_tune.search.record import read_attributes, read_record, write_attribute
from cifar_tune.search.reruns import read_runs
from cifar_tune.store import WEIGHTS, Store

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet"},
    optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "plateau", "patience": 0},
    epochs=3,
    batch_size=32,
    train_images=64,
)


def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)})


SEARCH = Search(num_trials=3, scheduler={"name": "none"})
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a search of three trials."""
    from cifar_tune.cli import app

    folder = tmp_path_factory.mktemp("searched")
    (folder / "tiny.py").write_text(SPACE, encoding="utf-8")
    app(["run", str(folder / "tiny.py"), "--store", str(folder / "store")], standalone_mode=False)
    return folder / "store"


@pytest.fixture
def store(searched: Path, tmp_path: Path) -> Store:
    """A copy of it."""
    shutil.copytree(searched, tmp_path / "store")
    return Store(tmp_path / "store")


def test_winner_and_baseline_are_trained_on_everything_and_tested_once(store: Store, call: Call) -> None:
    arguments = ("evaluate", "tiny", "--store", store.root, "--seeds", 2, "--flip-averaging")
    answer = call(*arguments)
    assert answer.code == 0, answer.stderr
    assert "not confirmed" in answer.stderr
    trials, runs = read_record(store)["tiny"], read_runs(store, "tiny", "evaluate", 1)
    winner = max(trials, key=lambda trial: (trial.val_accuracy or 0, -trial.number)).number
    assert len(runs) == (4 if winner else 2)
    for run in runs:  # the rates follow the search's validation, step by step
        assert [epoch["val_loss"] for epoch in run.curve] == [
            epoch["val_loss"] for epoch in trials[run.params["trial"]].curve
        ]
    found = read_evaluation(store, "tiny")
    assert found is not None
    assert found.winner.number == winner
    assert_logits_are_the_networks(store, found.baseline)
    assert "evaluation 1: 2 runs each" in plain(answer.stdout)
    assert "mean with mirror images" in plain(answer.stdout)
    assert "opened once" in plain(answer.stdout)

    assert call(*arguments).stdout == answer.stdout
    assert len(read_openings(store, "tiny")) == 1
    assert "opened once" in plain(call("report", "--store", store.root).stdout)
    page = (store.search("tiny/evaluate-1") / "page" / "index.html").read_text(encoding="utf-8")
    assert "http" not in page
    assert page.count("<img") == 2
    assert_mlflow_has_the_page(store)

    refused = call("evaluate", "tiny", "--store", store.root, "--seeds", 3)
    assert refused.code == 2
    assert "--seeds 2" in refused.stderr


def plain(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def assert_logits_are_the_networks(store: Store, baseline: Outcome) -> None:
    """Of the first seed, whose weights are kept: on the test images and their mirror images."""
    pixels, labels = shapes.generate("test")
    assert (baseline.labels == labels).all()
    run = read_runs(store, "tiny", "evaluate", 1)[0]
    classifier, recipe = load_classifier(store.trial(run.search, run.number) / WEIGHTS)
    assert recipe == run.recipe
    images = torch.from_numpy(pixels[:50])
    with torch.inference_mode():
        expected = [classifier(images), classifier(images.flip(-1))]
    for found, logits in zip(baseline.logits[0], expected, strict=True):
        np.testing.assert_allclose(found[:50], logits.numpy(), atol=1e-4)


def assert_mlflow_has_the_page(store: Store) -> None:
    client = MlflowClient(store.mlflow_url)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    (parent,) = [run for run in runs if run.info.run_name == "tiny/evaluate-1"]
    names = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert names == {"index.html", "confusion.png", "samples.png", "classes.txt"}
    assert 0 < parent.data.metrics["test_accuracy"] < 1


def test_an_evaluation_that_is_killed_opens_the_test_set_once(store: Store, start: Start, call: Call) -> None:
    arguments = ("evaluate", "tiny", "--store", store.root, "--seeds", 2)
    process = start(*arguments)
    wait_until(lambda: len(list(store.root.rglob(WEIGHTS))) > 1)
    process.kill()
    process.wait()
    assert read_openings(store, "tiny") == []
    process = start(*arguments)
    wait_until(lambda: bool(list(store.root.rglob(LOGITS))))
    process.kill()
    process.wait()
    last = call(*arguments)
    assert last.code == 0, last.stderr
    assert len(read_openings(store, "tiny")) == 1
    assert call(*arguments, "--again").code == 0
    assert "opened 2 times" in plain(call("report", "--store", store.root).stdout)


# The record of openings


def test_an_opening_is_noted_once_and_before_the_next(store: Store) -> None:
    for evaluation in (1, 1, 2, 1):
        note_opening(store, "tiny", evaluation)
    assert [opening.evaluation for opening in read_openings(store, "tiny")] == [1, 2]


@pytest.mark.parametrize("alter", [lambda entries: entries[1:], lambda entries: [{**entries[0], "at": "1999"}]])
def test_an_altered_record_of_openings_is_told(
    store: Store, alter: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    for evaluation in (1, 2):
        note_opening(store, "tiny", evaluation)
    write_attribute(store, "tiny", OPENINGS, alter(read_attributes(store, "tiny")[OPENINGS]))
    with pytest.raises(UserError, match="altered"):
        read_openings(store, "tiny")


# What is made of the networks' logits


def outcome(labels: list[int], guesses: list[int], num_classes: int = 3) -> Outcome:
    logits = np.full((2, 2, len(labels), num_classes), -1.0, dtype=np.float32)
    logits[:, :, np.arange(len(labels)), guesses] = 1.0
    return Outcome(1, logits, np.array(labels))


def test_the_confusion_of_classes_and_its_hardest_pairs() -> None:
    found = outcome([0, 0, 0, 0, 1, 1, 2], [0, 1, 1, 2, 1, 1, 0])
    assert confusion(found).tolist() == [[0.25, 0.5, 0.25], [0, 1, 0], [1, 0, 0]]
    assert hardest_pairs(found) == [(2, 0, 1.0), (0, 1, 0.5), (0, 2, 0.25)]


def test_the_mean_with_the_mirror_images_is_of_logits() -> None:
    found = outcome([0, 1], [1, 1])
    found.logits[:, 1, 0, 0] = 4.0  # the mirror image is surer of the right class
    assert found.hits.tolist() == [[False, True]] * 2
    assert found.averaged_hits.tolist() == [[True, True]] * 2


def test_every_class_has_its_line_where_none_was_predicted() -> None:
    report = class_report(outcome([0, 1, 1], [0, 0, 0]), ["cat", "dog", "emu"])
    assert [line.split()[0] for line in report.splitlines() if line.strip()][1:4] == ["cat", "dog", "emu"]


def test_a_hundred_classes_are_drawn_with_their_names() -> None:
    labels = list(range(100))
    figure = draw_confusion(outcome(labels, labels, 100), [f"class{i}" for i in labels])
    assert len(figure.axes[0].get_xticklabels()) == 100
    assert figure.get_size_inches()[0] > 12


def test_of_equals_the_baseline_wins() -> None:
    assert choose_winner({0: 0.5, 3: 0.6, 4: 0.55}, 0) == 3
    assert choose_winner({0: 0.6, 3: 0.6}, 0) == 0


def test_only_an_evaluation_reads_the_test_images(tmp_path: Path, call: Call) -> None:
    """The test file raises when it is read: it is no parquet at all, which its name does not tell."""
    data, path = tmp_path / "data", tmp_path / "tiny.py"
    write_shard(one_shard(data), random_images(400))
    one_shard(data, "test").write_bytes(b"not to be read")
    path.write_text(SPACE.replace('"shapes"', '"cifar10"').replace("epochs=3", "epochs=1"), encoding="utf-8")
    where = ("--store", tmp_path / "store", "--data-dir", data)
    assert call("run", path, "--num-trials", 2, *where).code == 0
    assert call("confirm", "tiny", "--top", 1, "--seeds", 2, *where).code == 0
    evaluated = call("evaluate", "tiny", "--seeds", 2, *where)
    assert evaluated.code == 2
    assert "test-00000-of-00001.parquet" in evaluated.stderr

    write_shard(one_shard(data, "test"), random_images(100, seed=1))
    assert call("evaluate", "tiny", "--seeds", 2, *where).code == 0
    assert len(read_openings(Store(tmp_path / "store"), "tiny")) == 1
