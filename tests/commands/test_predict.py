"""`predict`: image files of every kind, read as they look, and the network's own probabilities."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from helpers.command_line import Call
from helpers.runs import BASE
from PIL import Image

from cifar_tune.commands.predict import predict, read_image
from cifar_tune.data.images import CLASS_NAMES, NUM_CLASSES
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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"])
def test_a_plain_image_of_any_mode_is_read_as_it_looks(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image, expected = Image.fromarray(np.full((50, 70), 0x8040, dtype=np.uint16)), np.full(3, 0x80)
    else:
        image = Image.new("RGB", (70, 50), RED).convert("L" if mode in ("I", "F") else "RGB").convert(mode)
        expected = np.asarray(image.convert("RGB")).mean(
            axis=(0, 1)
        )  # the mean, since modes with few colours make a pattern
    saved = image.convert("RGBA") if mode in ("LA", "P", "HSV") else image  # modes that TIFF does not have
    saved.save(tmp_path / "a.tiff")
    pixels = read_image(tmp_path / "a.tiff")
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)), expected, atol=4)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("a.pgm", np.full((40, 40), 0x80FF, np.uint16), 0x80),
        ("a.tiff", np.full((40, 40), 0x80FF, np.int32), 0x80),
        ("a.tiff", np.full((40, 40), 200, np.int32), 200),
        ("a.tiff", np.full((40, 40), 0.5, np.float32), 127),
        ("a.tiff", np.full((40, 40), 200.7, np.float32), 200),
    ],
)
def test_gray_values_of_any_scale_are_read_as_they_look(
    tmp_path: Path, name: str, values: npt.NDArray[np.generic], expected: int
) -> None:
    Image.fromarray(values).save(tmp_path / name)
    assert (read_image(tmp_path / name) == expected).all()


@pytest.mark.parametrize("value", [-1.0, 1000.0, np.nan, np.inf])
def test_gray_values_of_an_unknown_scale_are_skipped(tmp_path: Path, weights: Path, value: float) -> None:
    Image.fromarray(np.full((40, 40), value, np.float32)).save(tmp_path / "a.tiff")
    (prediction,) = predict(weights, [tmp_path / "a.tiff"], top=3)
    assert prediction.error == "its values are none of 8 bits, of 16 bits or from 0 to 1; save it with 8 bits"


def test_of_equally_likely_classes_the_first_comes_first(tmp_path: Path) -> None:
    network = BASE.model.build(10)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    metadata = {"recipe": BASE.model_dump(mode="json"), "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    save_weights(tmp_path, network, metadata)
    Image.new("RGB", (32, 32), RED).save(tmp_path / "a.png")
    (prediction,) = predict(tmp_path / WEIGHTS, [tmp_path / "a.png"], top=3)
    assert [name for name, _ in prediction.classes] == CLASS_NAMES["shapes"][:3]


def test_transparency_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 40), (*RED, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in (RED, (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(read_image(tmp_path / "a.gif")[:, 16, 16], RED, atol=3)


def test_an_animated_png_is_its_still_image_if_it_has_one(tmp_path: Path) -> None:
    still, *frames = [Image.new("RGB", (40, 40), color) for color in (RED, (0, 0, 255), (0, 255, 0))]
    still.save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[:, 16, 16], RED)


def test_the_centre_square_is_used_and_photos_are_turned_upright(tmp_path: Path) -> None:
    wide = Image.new("RGB", (90, 30), (0, 0, 255))
    wide.paste(Image.new("RGB", (30, 30), RED), (30, 0))
    wide.save(tmp_path / "wide.png")
    np.testing.assert_allclose(read_image(tmp_path / "wide.png")[:, 16, 16], RED, atol=3)
    half = Image.new("RGB", (40, 40), (0, 0, 255))
    half.paste(Image.new("RGB", (40, 20), RED), (0, 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    half.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "turned.jpg")[:, 28, 16], RED, atol=6)


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
