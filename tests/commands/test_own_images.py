"""A user's own folder of images, from the search to the predictions, through the command line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import GOOD, Call
from mlflow import pyfunc
from mlflow.tracking import MlflowClient
from PIL import Image
from sklearn.metrics import f1_score

from cifar_tune.evaluation.reruns import read_runs
from cifar_tune.evaluation.test_set import read_evaluation
from cifar_tune.report.evaluation_page import metrics_of
from cifar_tune.store import HITS, Store
from cifar_tune.tracking.runs import find_parent
from cifar_tune.trials.reading import read_attributes

SPACE = (
    GOOD.replace('dataset="shapes"', 'dataset="folder", num_classes=3, image_size=40')
    .replace(", train_images=64", "")
    .replace("num_trials=2", 'num_trials=2, scheduler={"name": "none"}')
)
NAMES = ["a cat", "a dog", "an owl"]


def write_images(folder: Path, num_images: int, start: int = 0) -> None:
    """Noise in a colour for each class, in sizes of many shapes; other noise for another start."""
    random = np.random.default_rng(start)
    for number in range(start, start + num_images):
        label = number % 3
        pixels = random.integers(0, 120, (40 + number % 7, 30 + number % 11, 3), dtype=np.uint8)
        pixels[..., label] += 100
        path = folder / NAMES[label] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@pytest.mark.slow
def test_a_folder_is_searched_confirmed_evaluated_and_predicted_with_its_own_names(tmp_path: Path, call: Call) -> None:
    images, space = tmp_path / "images", tmp_path / "own.py"
    write_images(images, 90)
    space.write_text(SPACE)
    flags = ["--store", tmp_path / "store", "--data-dir", images]
    for command in (["run", space], ["confirm", "own", "--seeds", 2], ["evaluate", "own", "--seeds", 2]):
        answer = call(*command, *flags)
        assert answer.code == 0, answer.stderr
    assert "18 test images" in answer.stdout

    assert "Warning" not in answer.stderr

    store = Store(tmp_path / "store")
    folder = store.search("own/evaluate-1")
    report = (folder / "page" / "classes.txt").read_text()
    assert all(name in report for name in NAMES)
    weights = folder / "export" / "weights.safetensors"
    predicted = call("predict", weights, images / "a dog" / "001.png", "--top", 3).stdout
    assert all(name in predicted for name in NAMES)

    client = MlflowClient(store.mlflow_url)
    (version,) = client.search_model_versions("name = 'cifar-tune-own'")
    model = pyfunc.load_model(version.source)
    assert model.metadata.metadata["classes"] == NAMES
    assert model.predict(np.zeros((2, 3, 40, 40), np.uint8)).shape == (2, 3)

    assert re.search(r"folder [0-9a-f]{6} at 40 px", call("report", "own", *flags[:2], "--format", "csv").stdout)
    described = json.loads(call("describe", space, "--json").stdout)
    assert described["baseline"]["num_classes"] == 3
    assert "the learning rates are those for 10,000" in described["notes"][0]


@pytest.mark.slow
def test_copies_in_two_parts_are_a_warning_as_soon_as_both_parts_are_open(tmp_path: Path, call: Call) -> None:
    for part, start in (("train", 0), ("val", 60), ("test", 90)):
        write_images(tmp_path / "images" / part, 30, start)
    first = tmp_path / "images" / "train" / NAMES[0] / "000.png"
    for part, copies in (("val", 1), ("test", 2)):
        for number in range(copies):
            (tmp_path / "images" / part / NAMES[0] / f"copy{number}.png").write_bytes(first.read_bytes())
    space = tmp_path / "own.py"
    space.write_text(SPACE.replace("image_size=40", "image_size=28"))
    flags = ["--store", tmp_path / "store", "--data-dir", tmp_path / "images"]
    answer = call("run", space, *flags)
    assert "Warning: 1 of 31 validation images are in another part too" in " ".join(answer.stderr.split())
    assert "test images" not in answer.stderr
    answer = call("evaluate", "own", "--seeds", 2, *flags)
    assert answer.code == 0, answer.stderr
    assert "Warning: 2 of 32 test images are in another part too" in " ".join(answer.stderr.split())


@pytest.mark.slow
def test_an_imbalanced_data_set_is_searched_for_its_macro_f1(tmp_path: Path, call: Call) -> None:
    """With early stopping, which the runs of the evaluation follow; the figures are scikit-learn's."""
    counts = [120, 40, 20]
    labels = np.repeat(np.arange(3), counts)
    images = np.random.default_rng(0).integers(0, 150, (sum(counts), 32, 32, 3), dtype=np.uint8)
    images[np.arange(sum(counts)), ..., labels] += 60
    (tmp_path / "images").mkdir()
    np.savez(tmp_path / "images" / "own.npz", train_images=images, train_labels=labels)
    space = tmp_path / "own.py"
    patience = 'early_stopping={"name": "patience", "patience": 1}, epochs=3'
    text = SPACE.replace('"folder"', '"npz"').replace("image_size=40", "image_size=32")
    space.write_text(
        re.sub(r"epochs=\d+", patience, text, count=1).replace("num_trials=2", 'num_trials=2, score="macro_f1"')
    )
    flags = ["--store", tmp_path / "store", "--data-dir", tmp_path / "images"]
    for command in (["run", space], ["confirm", "own", "--seeds", 2], ["evaluate", "own", "--seeds", 2]):
        answer = call(*command, *flags)
        assert answer.code == 0, answer.stderr
    store = Store(tmp_path / "store")
    evaluation = read_evaluation(store, "own")
    assert evaluation is not None
    expected = [
        f1_score(evaluation.winner.labels, guesses, average="macro", zero_division=0.0)
        for guesses in evaluation.winner.predictions
    ]
    assert metrics_of(evaluation)["test_macro_f1"] == pytest.approx(np.mean(expected))
    for run in read_runs(store, "own", "confirm", 1):
        assert np.load(store.trial(run.search, run.number) / HITS).mean() == pytest.approx(run.score)
    rows = json.loads(call("report", "own", *flags[:2], "--format", "json").stdout)
    best = max((row for row in rows if row["rank"]), key=lambda row: row["val_macro_f1"])
    assert (best["rank"], best["score"]) == (1, "macro_f1")
    parent = find_parent(MlflowClient(store.mlflow_url), read_attributes(store, "own")["id"])
    assert parent.data.metrics["best_val_macro_f1"] == best["val_macro_f1"]
    space.write_text(space.read_text().replace("macro_f1", "balanced_accuracy"))
    refused = call("run", space, *flags)
    assert refused.code == 2
    assert "was started with another space file" in refused.stderr


def test_a_data_set_of_ones_own_needs_a_folder_and_its_number_of_classes(tmp_path: Path, call: Call) -> None:
    space = tmp_path / "own.py"
    space.write_text(SPACE)
    answer = call("run", space, "--store", tmp_path / "store")
    assert (answer.code, "say where they are with --data-dir" in answer.stderr) == (2, True)
    write_images(tmp_path / "images", 60)
    space.write_text(SPACE.replace("num_classes=3", "num_classes=4"))
    answer = call("run", space, "--store", tmp_path / "store", "--data-dir", tmp_path / "images")
    assert answer.code == 2
    assert "holds 3 classes (a cat, a dog, an owl), but the recipe says num_classes=4" in answer.stderr
    space.write_text(SPACE.replace("num_classes=3, ", ""))
    answer = call("run", space, "--store", tmp_path / "store")
    assert "say with num_classes how many classes they have" in answer.stderr
    space.write_text(GOOD.replace('dataset="shapes"', 'dataset="shapes", num_classes=9'))
    answer = call("run", space, "--store", tmp_path / "store")
    assert "shapes has 10 classes; leave num_classes out" in answer.stderr
    space.write_text(SPACE)
    setting = ["--set", "dataset=shapes"]
    assert "beside --set dataset=shapes add --set num_classes=none" in call("describe", space, *setting).stderr
    assert call("describe", space, *setting, "--set", "num_classes=none").code == 0
    assert not (tmp_path / "store" / "searches" / "own").exists()
