"""MNIST and its kin, on small files in their format that the tests write and serve."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.image_files import assert_same, md5
from helpers.serving import serving

from cifar_tune.data.datasets import load_test_images, load_training_data
from cifar_tune.data.download import PublishedFile
from cifar_tune.data.images import CLASS_NAMES, DATASETS, DatasetName, IdxFiles, Images
from cifar_tune.data.mnist import IdxPart, find_idx, published_idx
from cifar_tune.errors import UserError

GRAY = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
WRITTEN = Images(GRAY[:, None].repeat(3, axis=1), np.arange(30) % 10)
KIN: list[DatasetName] = ["mnist", "fashion_mnist", "kmnist"]
FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}


def idx(values: npt.NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


CONTENTS = {"images-idx3": idx(GRAY), "labels-idx1": idx(WRITTEN.labels.astype(np.uint8))}


def write_idx(folder: Path, prefix: str = "train", *, is_packed: bool = True) -> IdxPart:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, content in CONTENTS.items():
        packed = gzip.compress(content)
        filename = f"{prefix}-{name}-ubyte.gz"
        path = folder / filename
        (path if is_packed else path.with_suffix("")).write_bytes(packed if is_packed else content)
        files.append(PublishedFile("mnist", f"http://127.0.0.1:9/{filename}", filename, md5(packed)))
    return IdxPart(*files)


def load(part: IdxPart, data_dir: Path | None, store: Path) -> Images:
    return find_idx(part, data_dir, store).decode()


@pytest.mark.parametrize("folder", ["MNIST/raw", "raw", ""])
@pytest.mark.parametrize("is_packed", [True, False])
def test_the_files_are_found_where_people_keep_them(tmp_path: Path, folder: str, is_packed: bool) -> None:
    part = write_idx(tmp_path / "data" / folder, is_packed=is_packed)
    assert_same(load(part, tmp_path / "data", tmp_path / "store"), WRITTEN)
    assert not (tmp_path / "store").exists()


def test_images_are_those_of_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import MNIST

    for prefix in ("train", "t10k"):
        write_idx(tmp_path / "MNIST" / "raw", prefix, is_packed=False)
    theirs = MNIST(str(tmp_path), train=False)
    ours = load_test_images("mnist", data_dir=tmp_path, store=tmp_path / "store", image_size=28).images
    np.testing.assert_array_equal(ours.images[:, 0], theirs.data)
    np.testing.assert_array_equal(ours.labels, theirs.targets)


@pytest.mark.parametrize("name", KIN)
def test_a_search_sees_gray_images_in_the_recipes_size_and_no_test_file(tmp_path: Path, name: DatasetName) -> None:
    write_idx(tmp_path / FOLDERS[name] / "raw", is_packed=False)
    data = load_training_data(name, train_images=None, data_dir=tmp_path, store=tmp_path / "store")
    assert (len(data.train), len(data.val), data.class_names) == (27, 3, CLASS_NAMES[name])
    assert data.train.images.shape[1:] == (3, 32, 32)
    assert (data.train.images == data.train.images[:, :1]).all()
    with pytest.raises(UserError, match=rf"No {name} in .*{FOLDERS[name]}/raw/t10k-images-idx3-ubyte\.gz"):
        load_test_images(name, data_dir=tmp_path, store=tmp_path / "store")


def test_a_file_that_is_packed_and_unpacked_is_read_where_it_has_a_checksum(tmp_path: Path) -> None:
    part = write_idx(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"something else")
    assert_same(load(part, tmp_path, tmp_path / "store"), WRITTEN)


def test_files_of_another_data_set_are_not_taken(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", is_packed=False)
    for data_dir in (tmp_path, tmp_path / "MNIST", tmp_path / "MNIST" / "raw"):
        with pytest.raises(UserError, match=r"No kmnist in .*looked for torchvision's layout \(KMNIST/raw/train-im"):
            load_training_data("kmnist", train_images=None, data_dir=data_dir, store=tmp_path / "store")
        data = load_training_data("mnist", train_images=None, data_dir=data_dir, store=tmp_path / "store")
        assert len(data.train) + len(data.val) == 30


def test_a_file_with_another_checksum_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path)
    with pytest.raises(UserError, match=r"images-idx3-ubyte\.gz is damaged: its MD5 is not the published one"):
        load_training_data("mnist", train_images=None, data_dir=tmp_path, store=tmp_path / "store")


def test_missing_labels_are_named(tmp_path: Path) -> None:
    part = write_idx(tmp_path)
    (tmp_path / part.labels.filename).unlink()
    with pytest.raises(UserError, match=r"mnist is incomplete: .*train-labels-idx1-ubyte\.gz is missing"):
        load(part, tmp_path, tmp_path / "store")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no file of 3 dimensions in MNIST's format"),
        (CONTENTS["images-idx3"][:10], "is no file of 3 dimensions"),
        (CONTENTS["labels-idx1"], "is no file of 3 dimensions"),
        (b"\0\0\x0d" + CONTENTS["images-idx3"][3:], "is no file of 3 dimensions"),
        (CONTENTS["images-idx3"][:-1], r"is damaged: it has 23,519 values, not \[30, 28, 28\]"),
        (struct.pack(">I3I", 0x803, *[2**32 - 1] * 3), "is damaged: it has 0 values"),
        (struct.pack(">I3I", 0x803, 30, 0, 28), "is damaged: it has 0 values"),
        (idx(GRAY[:20]), r"has 20 images, and train-labels-idx1-ubyte has 30 labels; download both again"),
    ],
)
def test_a_damaged_unpacked_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    part = write_idx(tmp_path, is_packed=False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match=rf"train-images-idx3-ubyte {reason}"):
        load(part, tmp_path, tmp_path / "store")


def test_a_packed_file_with_the_right_checksum_that_is_no_gzip_is_a_sentence(tmp_path: Path) -> None:
    part = write_idx(tmp_path)
    (tmp_path / part.labels.filename).write_bytes(b"no gzip")
    with pytest.raises(UserError, match=r"labels-idx1-ubyte\.gz cannot be read \(Not a gzipped file"):
        load(IdxPart(part.images, replace(part.labels, md5=md5(b"no gzip"))), tmp_path, tmp_path / "store")


def test_a_label_that_is_no_class_is_damage(tmp_path: Path) -> None:
    part = write_idx(tmp_path, is_packed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(30, dtype=np.uint8) % 11))
    with pytest.raises(UserError, match="is damaged: a label is outside 0 to 9"):
        load(part, tmp_path, tmp_path / "store")


def test_a_download_is_verified_and_kept(tmp_path: Path) -> None:
    part = write_idx(tmp_path / "data")
    with serving(tmp_path / "data") as server:
        files = (part.images, part.labels)
        served = IdxPart(
            *(replace(each, url=f"http://127.0.0.1:{server.server_port}/{each.filename}") for each in files)
        )
        left = tmp_path / "store" / "downloads" / "mnist" / part.images.filename
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half of an earlier download")
        assert_same(load(served, None, tmp_path / "store"), WRITTEN)
    assert_same(load(served, None, tmp_path / "store"), WRITTEN)
    with pytest.raises(UserError, match=r"mnist could not be downloaded .* --data-dir .* \(MNIST/raw/train-images"):
        load(served, None, tmp_path / "other")


@pytest.mark.parametrize("name", KIN)
def test_files_and_classes_are_torchvisions(name: DatasetName) -> None:
    import torchvision.datasets

    origin = DATASETS[name].origin
    assert isinstance(origin, IdxFiles)
    assert origin.torchvision_class == FOLDERS[name]
    assert CLASS_NAMES[name] == getattr(torchvision.datasets, FOLDERS[name]).classes
    for part in (published_idx(name, "train"), published_idx(name, "test")):
        assert "images" in part.images.filename
        assert "labels" in part.labels.filename
        assert all(file.url.startswith("http") and len(file.md5) == 32 for file in (part.images, part.labels))
