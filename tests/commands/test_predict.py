"""`predict`: image files of every kind, read as they look, and the network's own probabilities."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import Call
from helpers.runs import BASE
from PIL import Image

from cifar_tune.commands.predict import predict
from cifar_tune.data.images import CLASS_NAMES, NUM_CLASSES
from cifar_tune.data.pixels import read_image
from cifar_tune.data.shapes import CLASSES
from cifar_tune.store import WEIGHTS
from cifar_tune.training.checkpoint import save_weights
from cifar_tune.training.inference import load_classifier

RED = (200, 30, 40)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a network that was never trained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    metadata = {
        "recipe": BASE.model_dump(mode="json"),
        "preprocessing": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    }
    save_weights(folder, BASE.model.build(10), metadata)
    return folder / WEIGHTS


def test_every_class_has_a_name() -> None:
    assert {name: len(names) for name, names in CLASS_NAMES.items()} == NUM_CLASSES
    assert all(len(set(names)) == len(names) for names in CLASS_NAMES.values())
    assert CLASS_NAMES["shapes"] == list(CLASSES)
    assert CLASS_NAMES["cifar100"] == sorted(CLASS_NAMES["cifar100"])


def test_an_image_of_the_networks_size_is_taken_as_it_is(tmp_path: Path, weights: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels.transpose(2, 0, 1))
    classifier, recipe = load_classifier(weights)
    assert recipe == BASE
    with torch.inference_mode():
        expected = classifier(torch.from_numpy(pixels.transpose(2, 0, 1))[None])[0].softmax(0)
    (prediction,) = predict(weights, [tmp_path / "a.png"], top=2)
    assert [share for _, share in prediction.classes] == pytest.approx(
        expected.sort(descending=True).values[:2].tolist()
    )
    assert prediction.classes[0][0] == CLASS_NAMES["shapes"][int(expected.argmax())]


def test_the_classifier_scales_as_training_does(weights: Path) -> None:
    classifier, _ = load_classifier(weights)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    with torch.inference_mode():
        torch.testing.assert_close(classifier(images), classifier.network((images / 255 - mean) / std))


@pytest.mark.parametrize("value", [-1.0, 1000.0, np.nan, np.inf])
def test_gray_values_of_an_unknown_scale_are_skipped(tmp_path: Path, weights: Path, value: float) -> None:
    Image.fromarray(np.full((40, 40), value, np.float32)).save(tmp_path / "a.tiff")
    (prediction,) = predict(weights, [tmp_path / "a.tiff"], top=3)
    assert prediction.error is not None
    assert re.fullmatch(r"its fractions are from \S+ to \S+, not from 0 to 1; save it with 8 bits", prediction.error)


def test_of_equally_likely_classes_the_first_comes_first(tmp_path: Path) -> None:
    network = BASE.model.build(10)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    metadata = {"recipe": BASE.model_dump(mode="json"), "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    save_weights(tmp_path, network, metadata)
    Image.new("RGB", (32, 32), RED).save(tmp_path / "a.png")
    (prediction,) = predict(tmp_path / WEIGHTS, [tmp_path / "a.png"], top=3)
    assert [name for name, _ in prediction.classes] == CLASS_NAMES["shapes"][:3]


def test_what_cannot_be_read_is_named_and_skipped(
    tmp_path: Path, weights: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 40), RED).save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:50])
    Image.new("RGB", (400, 400), RED).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    names = ["text.png", "good.png", "cut.png", "missing.png", "huge.png"]
    answer = call("predict", weights, *(tmp_path / name for name in names))
    assert answer.code == 2
    assert [line.partition(": ")[0] for line in answer.stdout.splitlines()] == [str(tmp_path / "good.png")]
    assert answer.stdout.count("%") == 3
    skipped = [line for line in answer.stderr.splitlines() if "was skipped" in line]
    assert len(skipped) == 4
    assert "Traceback" not in answer.stderr
    assert call("predict", weights, tmp_path / "good.png", "--top", 20).stdout.count("%") == 10


def test_another_file_than_a_network_is_refused(tmp_path: Path, call: Call) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    answer = call("predict", tmp_path / WEIGHTS, tmp_path / "a.png")
    assert answer.code == 2
    assert "holds no network" in answer.stderr
