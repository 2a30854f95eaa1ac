"""`init`: a folder of images becomes a search space that loads, says what is there, and can be searched."""

from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import Call
from PIL import Image

from cifar_tune.commands.init import TEMPLATE, budget
from cifar_tune.search.space import load_space

OWN_IMAGES = Path(__file__).parents[2] / "search_spaces" / "own_images.py"


def write_images(folder: Path, num_images: int, side: int, names: list[str]) -> Path:
    for number in range(num_images):
        path = folder / names[number % len(names)] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side + number % 5, side), (number, 0, 0)).save(path)
    return folder


@pytest.mark.parametrize(("side", "size"), [(20, 28), (40, 32), (300, 64)])
def test_the_space_has_the_folders_classes_and_size(tmp_path: Path, call: Call, side: int, size: int) -> None:
    images, output = write_images(tmp_path / "my images", 60, side, ["a", "b", "c"]), tmp_path / "mine.py"
    answer = call("init", images, "--output", output)
    assert answer.code == 0
    assert "folder, 48 images of 3 classes, 30 epochs" in answer.stdout
    assert f"run {output} --data-dir '{images}' --plan" in answer.stdout
    space = load_space(output)
    space.check()
    (baseline,) = space.baselines
    assert (baseline.dataset, baseline.num_classes, baseline.image_size) == ("folder", 3, size)


@pytest.mark.slow
def test_the_space_can_be_searched_as_it_is(tmp_path: Path, call: Call) -> None:
    images, output = write_images(tmp_path / "images", 60, 32, ["a", "b"]), tmp_path / "mine.py"
    assert call("init", images, "--output", output).code == 0
    flags = ["--data-dir", images, "--store", tmp_path / "store", "--num-trials", 1, "--set", "epochs=1"]
    assert call("run", output, *flags).code == 0


def test_other_layouts_are_found_too(tmp_path: Path, call: Call) -> None:
    np.savez(tmp_path / "a.npz", train_images=np.zeros((60, 28, 28), np.uint8), train_labels=np.arange(60) % 4)
    assert call("init", tmp_path, "--output", tmp_path / "mine.py").code == 0
    (baseline,) = load_space(tmp_path / "mine.py").baselines
    assert (baseline.dataset, baseline.num_classes, baseline.image_size) == ("npz", 4, 32)


@pytest.mark.parametrize("name", ["quoted \"so\" and 'so'", "back\\slash", '"""', "a" * 150])
def test_names_of_any_kind_make_a_file_that_loads(tmp_path: Path, call: Call, name: str) -> None:
    images = write_images(tmp_path / f"of {name}", 60, 32, [name, f"{name} and more"])
    assert call("init", images, "--output", tmp_path / "mine.py").code == 0
    load_space(tmp_path / "mine.py").check()


@pytest.mark.parametrize(("counts", "score"), [((40, 20), "accuracy"), ((60, 20), "balanced_accuracy")])
def test_classes_of_very_different_sizes_count_alike(
    tmp_path: Path, call: Call, counts: tuple[int, int], score: str
) -> None:
    labels = np.repeat([0, 1], counts)
    np.savez(tmp_path / "a.npz", train_images=np.zeros((len(labels), 28, 28), np.uint8), train_labels=labels)
    assert call("init", tmp_path, "--output", tmp_path / "mine.py").code == 0
    assert load_space(tmp_path / "mine.py").search.score == score


def test_no_file_is_replaced_and_no_folder_without_images_taken(tmp_path: Path, call: Call) -> None:
    images = write_images(tmp_path / "images", 60, 32, ["a", "b"])
    (tmp_path / "mine.py").write_text("precious")
    answer = call("init", images, "--output", tmp_path / "mine.py")
    assert (answer.code, "is there already; name another file with --output" in answer.stderr) == (2, True)
    assert (tmp_path / "mine.py").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    for folder, reason in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "empty", "holds no images")):
        answer = call("init", folder, "--output", tmp_path / "other.py")
        assert (answer.code, reason in answer.stderr) == (2, True)
    assert not (tmp_path / "other.py").exists()


@pytest.mark.parametrize(
    ("num_images", "epochs", "batch_size"), [(100, 30, 32), (3_000, 30, 64), (20_000, 10, 128), (500_000, 5, 128)]
)
def test_many_images_take_fewer_epochs_and_larger_batches(num_images: int, epochs: int, batch_size: int) -> None:
    assert budget(num_images) == (epochs, batch_size)


def test_the_shipped_template_is_the_same_with_other_values() -> None:
    text = OWN_IMAGES.read_text()
    augment = "Augment(flip=False, crop_padding=2),  # a mirrored digit is none; most photographs may be mirrored"
    expected = TEMPLATE.substitute(
        docstring=text.removeprefix('"""').partition('\n"""')[0],
        task='"dataset": "digits",\n    # "num_classes": 5,  # your own images need this',
        image_size=32,
        epochs=5,
        batch_size=32,
        augment=f'"augment": {augment}',
        width=0.5,
        widths="0.25, 0.5, 1.0",
        search="num_trials=12",
    )
    assert text == expected
