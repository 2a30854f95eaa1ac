"""SVHN, on small MATLAB files that the tests write and serve."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.image_files import assert_same, md5, random_images
from helpers.serving import serving
from scipy.io import savemat

from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.download import PublishedFile
from cifar_tune.data.images import DATASETS, Images
from cifar_tune.data.svhn import find_mat, published_mat
from cifar_tune.errors import UserError

WRITTEN = random_images(30)


def write_mat(folder: Path, arrays: dict[str, Any] | None = None) -> PublishedFile:
    """The images as SVHN has them, where the label of the digit 0 is 10."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.where(WRITTEN.labels == 0, 10, WRITTEN.labels).astype(np.uint8)
    savemat(folder / "tiny.mat", arrays or {"X": WRITTEN.images.transpose(2, 3, 1, 0), "y": labels[:, None]})
    content = (folder / "tiny.mat").read_bytes()
    return PublishedFile("svhn", "http://127.0.0.1:9/tiny.mat", "tiny.mat", md5(content))


def load(file: PublishedFile, data_dir: Path | None, store: Path) -> Images:
    return find_mat(file, data_dir, store).decode()


def test_images_are_read_in_order_and_the_label_10_is_the_digit_0(tmp_path: Path) -> None:
    file = write_mat(tmp_path / "data")
    assert_same(load(file, tmp_path / "data", tmp_path / "store"), WRITTEN)
    assert not (tmp_path / "store").exists()


def test_images_are_those_of_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import SVHN

    file = write_mat(tmp_path)

    theirs = type("Tiny", (SVHN,), {"split_list": {"train": [file.url, file.filename, file.md5]}})(str(tmp_path))
    ours = load(file, tmp_path, tmp_path / "store")
    np.testing.assert_array_equal(ours.images, theirs.data)
    np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_a_download_is_verified_and_kept(tmp_path: Path) -> None:
    file = write_mat(tmp_path / "data")
    with serving(tmp_path / "data") as server:
        served = replace(file, url=f"http://127.0.0.1:{server.server_port}/tiny.mat")
        assert_same(load(served, None, tmp_path / "store"), WRITTEN)
        with pytest.raises(UserError, match=r"is not the published tiny\.mat .* --data-dir"):
            load(replace(served, md5="0" * 32), None, tmp_path / "other")
    assert_same(load(served, None, tmp_path / "store"), WRITTEN)


def test_without_a_network_the_user_learns_how_to_bring_the_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"svhn could not be downloaded .* --data-dir .* holds tiny\.mat, as torchvis"):
        load(write_mat(tmp_path / "data"), None, tmp_path / "store")


def test_a_folder_without_the_file_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No svhn in .*: looked for train_32x32\.mat, as torchvision has it\.$"):
        load_training_data("svhn", train_images=None, data_dir=tmp_path, store=tmp_path / "store")


def test_a_file_with_another_checksum_is_named(tmp_path: Path) -> None:
    write_mat(tmp_path / "data")
    (tmp_path / "data" / "tiny.mat").rename(tmp_path / "data" / "train_32x32.mat")
    with pytest.raises(UserError, match=r"train_32x32\.mat is damaged: its MD5 is not the published one"):
        load_training_data("svhn", train_images=None, data_dir=tmp_path / "data", store=tmp_path / "store")


@pytest.mark.parametrize(
    "arrays",
    [
        {"X": np.zeros((32, 32, 3, 9), np.uint8)},
        {"X": np.zeros((32, 32, 3, 9), np.uint8), "y": np.ones((8, 1))},
        {"X": np.zeros((32, 32, 3, 9), np.float64), "y": np.ones((9, 1))},
        {"X": "text", "y": "text"},
    ],
    ids=["no labels", "fewer labels", "fractions", "text"],
)
def test_a_file_with_the_right_checksum_and_other_arrays_is_a_sentence(tmp_path: Path, arrays: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"tiny\.mat holds no images and labels \(.*\); download it again\.$"):
        load(write_mat(tmp_path, arrays), tmp_path, tmp_path / "store")


def test_the_published_files_are_torchvisions_without_the_extra_part() -> None:
    train, test = published_mat("svhn", "train"), published_mat("svhn", "test")
    assert [file.filename for file in (train, test)] == ["train_32x32.mat", "test_32x32.mat"]
    assert all(file.url.endswith(file.filename) and len(file.md5) == 32 for file in (train, test))
    assert DATASETS["svhn"].num_images == 73_257
