"""`evaluate` through the command line: real Ray, Optuna and MLflow on tiny trials of random images."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import GOOD, Call, Start, wait_until
from helpers.image_files import one_shard, random_images, write_shard
from helpers.made_trials import RECIPE, printed
from helpers.records import written
from mlflow.tracking import MlflowClient
from PIL import Image

from cifar_tune.commands.evaluate import render
from cifar_tune.data.images import Images
from cifar_tune.errors import UserError
from cifar_tune.evaluation.reruns import Design, read_runs
from cifar_tune.evaluation.test_set import (
    Evaluation,
    Outcome,
    _check_same,
    choose_winner,
    confusion,
    hardest_pairs,
    read_evaluation,
)
from cifar_tune.evaluation.test_set_log import OPENINGS, note_opening, read_openings
from cifar_tune.report.evaluation_page import class_report, draw_confusion, draw_samples, metrics_of
from cifar_tune.report.sentences import describe_openings
from cifar_tune.search.identity import open_record
from cifar_tune.search.space import load_space
from cifar_tune.store import WEIGHTS, Store
from cifar_tune.training.inference import load_classifier
from cifar_tune.training.scores import ScoreName
from cifar_tune.trials.reading import read_attributes, read_record, write_attribute

SPACE = (
    GOOD.replace("shapes", "cifar10")
    .replace('"constant"', '"plateau", "patience": 0')
    .replace("epochs=1", "epochs=3")
    .replace("num_trials=2", 'num_trials=2, scheduler={"name": "none"}')
)

# Functions that an evaluation calls after its training, in this order.
MOMENTS = [
    "cifar_tune.training.checkpoint:save_array",  # the test set was read
    "cifar_tune.report.evaluation_page:draw_samples",
    "torch.export:save",  # the weights that are not needed are deleted
    "cifar_tune.commands.evaluate:write_attribute",
    "cifar_tune.tracking.runs:log_files",
    "mlflow.tracking:MlflowClient.set_registered_model_alias",
]
DIE_AT = """
import importlib, os, signal, sys
from functools import reduce

module, _, path = sys.argv.pop(1).partition(":")
*owners, name = path.split(".")
owner = reduce(getattr, owners, importlib.import_module(module))
setattr(owner, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
from cifar_tune.cli import main

main()
"""


@pytest.fixture
def searched(store: Store, tmp_path: Path) -> Store:
    """A store with the record of a search that has no trial yet."""
    open_record(store, "tiny", written(tmp_path, SPACE), seed=0)
    return store


@pytest.mark.slow
def test_winner_and_baseline_are_trained_on_everything_and_tested_once(
    tmp_path: Path, start: Start, call: Call
) -> None:
    """The test file raises when it is read, until the evaluation has come there: it is no parquet at all."""
    store, data, path = Store(tmp_path / "store"), tmp_path / "data", tmp_path / "tiny.py"
    write_shard(one_shard(data), random_images(400))
    one_shard(data, "test").write_bytes(b"not to be read")
    path.write_text(SPACE, encoding="utf-8")
    where = ("--store", store.root, "--data-dir", data)
    assert call("run", path, *where).code == 0
    arguments = ("evaluate", "tiny", "--seeds", 2, "--flip-averaging", *where)
    process = start(*arguments)
    wait_until(lambda: len(list(store.root.rglob(f"evaluate-1/**/{WEIGHTS}"))) > 1)
    process.kill()
    process.wait()
    assert read_openings(store, "tiny") == []
    unreadable = call(*arguments)
    assert unreadable.code == 2
    assert "test-00000-of-00001.parquet" in unreadable.stderr

    images = random_images(100, seed=1)
    write_shard(one_shard(data, "test"), images)
    for moment in MOMENTS:
        killed = subprocess.run([sys.executable, "-c", DIE_AT, moment, *map(str, arguments)], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert len(read_openings(store, "tiny")) == 1
        assert openings_in_report(call, store) == "once"
    answer = call(*arguments)
    assert answer.code == 0, answer.stderr
    trials, runs = read_record(store)["tiny"], read_runs(store, "tiny", "evaluate", 1)
    winner = max(trials, key=lambda trial: (trial.score or 0, -trial.number)).number
    assert len(runs) == (4 if winner else 2)
    for run in runs:  # the rates follow the search's validation, step by step
        assert [epoch["val_loss"] for epoch in run.curve] == [
            epoch["val_loss"] for epoch in trials[run.params["trial"]].curve
        ]
    evaluation = read_evaluation(store, "tiny")
    assert evaluation is not None
    assert evaluation.winner.number == winner
    assert_logits_are_the_networks(store, evaluation.baseline, images)
    assert "evaluation 1: 2 runs each" in plain(answer.stdout)
    assert "mean with mirror images" in plain(answer.stdout)
    assert "opened once" in plain(answer.stdout)

    assert call(*arguments).stdout == answer.stdout
    assert len(read_openings(store, "tiny")) == 1
    page = (store.search("tiny/evaluate-1") / "page" / "index.html").read_text(encoding="utf-8")
    assert "http" not in page
    assert page.count("<img") == 2
    assert_mlflow_has_the_page_and_the_champion(store)
    assert_the_winner_is_exported(store, evaluation.winner.number)

    refused = call("evaluate", "tiny", "--seeds", 3, *where)
    assert refused.code == 2
    assert "--seeds 2" in refused.stderr


def openings_in_report(call: Call, store: Store) -> str:
    """How often the test set was opened, as the report says it."""
    match = re.search(r"was opened (\w+)", plain(call("report", "--store", store.root).stdout))
    return match[1] if match else "not mentioned"


def plain(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def assert_logits_are_the_networks(store: Store, baseline: Outcome, images: Images) -> None:
    """The stored logits of the first seed, whose weights are kept, on the test images and their mirror images."""
    assert (baseline.labels == images.labels).all()
    run = read_runs(store, "tiny", "evaluate", 1)[0]
    classifier, recipe = load_classifier(store.trial(run.search, run.number) / WEIGHTS)
    assert recipe == run.recipe
    pixels = torch.from_numpy(images.images[:50])
    with torch.inference_mode():
        expected = [classifier(pixels), classifier(pixels.flip(-1))]
    for stored, logits in zip(baseline.logits[0], expected, strict=True):
        np.testing.assert_allclose(stored[:50], logits.numpy(), atol=1e-4)


def assert_the_winner_is_exported(store: Store, winner: int) -> None:
    folder = store.search("tiny/evaluate-1") / "export"
    classifier, recipe = load_classifier(folder / WEIGHTS)
    assert recipe.model_copy(update={"seed": 0}) == read_record(store)["tiny"][winner].recipe
    program = torch.export.load(folder / "model.pt2").module()
    for number in (1, 7):
        images = torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8)
        with torch.inference_mode():
            torch.testing.assert_close(program(images), classifier(images))
    assert load_space(folder / "winner.py").baselines == (read_record(store)["tiny"][winner].recipe,)


def assert_mlflow_has_the_page_and_the_champion(store: Store) -> None:
    client = MlflowClient(store.mlflow_url)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    (parent,) = [run for run in runs if run.info.run_name == "tiny/evaluate-1"]
    names = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert names == {"index.html", "confusion.png", "samples.png", "classes.txt"}
    assert 0 < parent.data.metrics["test_accuracy"] < 1
    assert len(client.search_logged_models([parent.info.experiment_id])) == 1
    champion = client.get_model_version_by_alias("cifar-tune-tiny", "champion")
    assert champion.run_id == parent.info.run_id
    assert f"{100 * parent.data.metrics['test_accuracy']:.2f} % of the test images" in str(champion.description)


# The record of openings


def test_an_opening_is_noted_once_and_before_the_next(searched: Store) -> None:
    for evaluation in (1, 1, 2, 1):
        note_opening(searched, "tiny", evaluation)
    openings = read_openings(searched, "tiny")
    assert [opening.evaluation for opening in openings] == [1, 2]
    assert describe_openings(openings).startswith("The test set of this search was opened 2 times, last on 20")


@pytest.mark.parametrize("alter", [lambda entries: entries[1:], lambda entries: [{**entries[0], "at": "1999"}]])
def test_an_altered_record_of_openings_is_told(
    searched: Store, alter: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    for evaluation in (1, 2):
        note_opening(searched, "tiny", evaluation)
    write_attribute(searched, "tiny", OPENINGS, alter(read_attributes(searched, "tiny")[OPENINGS]))
    with pytest.raises(UserError, match="altered"):
        read_openings(searched, "tiny")


# Without training: statistics of the networks' logits


def outcome(labels: list[int], guesses: list[int], num_classes: int = 3) -> Outcome:
    logits = np.full((2, 2, len(labels), num_classes), -1.0, dtype=np.float32)
    logits[:, :, np.arange(len(labels)), guesses] = 1.0
    return Outcome(1, logits, np.array(labels))


def test_the_confusion_of_classes_and_its_hardest_pairs() -> None:
    tested = outcome([0, 0, 0, 0, 1, 1, 2], [0, 1, 1, 2, 1, 1, 0])
    assert confusion(tested).tolist() == [[0.25, 0.5, 0.25], [0, 1, 0], [1, 0, 0]]
    assert hardest_pairs(tested) == [(2, 0, 1.0), (0, 1, 0.5), (0, 2, 0.25)]


def test_the_mean_with_the_mirror_images_is_of_logits() -> None:
    tested = outcome([0, 1], [1, 1])
    tested.logits[:, 1, 0, 0] = 4.0  # the mirror image is surer of the right class
    assert tested.values("accuracy").tolist() == [[False, True]] * 2
    assert tested.values("accuracy", averaged=True).tolist() == [[True, True]] * 2


def of_two(score: ScoreName) -> Evaluation:
    """The winner finds the two images of the rare class, at the price of three of the other."""
    labels = [0] * 8 + [1] * 2
    baseline, winner = outcome(labels, [0] * 10, 2), outcome(labels, [0] * 5 + [1] * 5, 2)
    return Evaluation(1, Design(0, 1, (1, 2), {0: RECIPE, 1: RECIPE}, score=score), winner, replace(baseline, number=0))


@pytest.mark.parametrize(
    ("score", "winner", "baseline"), [("balanced_accuracy", 13 / 16, 0.5), ("macro_f1", (10 / 13 + 4 / 7) / 2, 4 / 9)]
)
def test_another_score_decides_and_the_accuracy_stands_beside_it(
    score: ScoreName, winner: float, baseline: float
) -> None:
    evaluation = of_two(score)
    metrics = metrics_of(evaluation)
    assert metrics["test_accuracy"] == pytest.approx(0.7)
    assert metrics["baseline_test_accuracy"] == pytest.approx(0.8)
    assert metrics[f"test_{score}"] == pytest.approx(winner)
    assert metrics[f"baseline_test_{score}"] == pytest.approx(baseline)
    assert metrics["test_gain"] == pytest.approx(winner - baseline)
    shown = printed(render(evaluation, flip_averaging=False))
    assert all(f"{100 * share:.2f} %" in shown for share in (winner, baseline, 0.7, 0.8))
    assert of_two("accuracy").gain().mean == pytest.approx(-0.1)
    assert metrics_of(of_two("accuracy")).keys() == {
        "test_accuracy",
        "baseline_test_accuracy",
        "test_gain",
        "test_gain_low",
        "test_gain_high",
    }


def test_every_class_has_its_line_where_none_was_predicted() -> None:
    report = class_report(outcome([0, 1, 1], [0, 0, 0]), ["cat", "dog", "emu"])
    assert [line.split()[0] for line in report.splitlines() if line.strip()][1:4] == ["cat", "dog", "emu"]


def test_a_hundred_classes_are_drawn_with_their_names() -> None:
    labels = list(range(100))
    figure = draw_confusion(outcome(labels, labels, 100), [f"class{i}" for i in labels])
    assert len(figure.axes[0].get_xticklabels()) == 100
    assert figure.get_size_inches()[0] > 12


def test_an_interrupted_evaluation_goes_on_with_the_same_test_images_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(2):
        _check_same(store, "tiny", 1, "0a1b")
    with pytest.raises(UserError, match="test images have changed since this evaluation opened them"):
        _check_same(store, "tiny", 1, "2c3d")
    _check_same(store, "tiny", 2, "2c3d")


@pytest.mark.parametrize("num_classes", [2, 150, 1_000])
def test_figures_have_a_size_that_a_screen_shows_whatever_the_classes_are_called(
    tmp_path: Path, num_classes: int
) -> None:
    labels = list(range(num_classes))
    names = [f"costs $5 and $6, {i} " + "a very long name " * 10 for i in labels]
    figures = [
        draw_confusion(outcome(labels, labels, num_classes), names),
        draw_samples(outcome(labels, labels, num_classes), random_images(num_classes, num_classes), names),
    ]
    for figure in figures:
        figure.savefig(tmp_path / "figure.png", dpi=130)
        with Image.open(tmp_path / "figure.png") as picture:
            assert max(picture.size) < 4_000


@pytest.mark.parametrize("name", ["a Golden Retriever mix, $5", "Wirehaired_Pointing_Griffon", "W" * 30])
def test_titles_of_samples_do_not_overlap_whatever_the_classes_are_called(name: str) -> None:
    labels, guesses = [i % 2 for i in range(40)], [i // 2 % 2 for i in range(40)]
    figure = draw_samples(outcome(labels, guesses, 2), random_images(40, 2), [name, f"{name} "])
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.title.get_text()]
    assert len(boxes) == 16
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_the_baseline_wins_a_tie() -> None:
    assert choose_winner({0: 0.5, 3: 0.6, 4: 0.55}, 0) == 3
    assert choose_winner({0: 0.6, 3: 0.6}, 0) == 0
