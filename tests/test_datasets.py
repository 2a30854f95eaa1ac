"""Datasets: parquet and pickled sources, the download, the cache and the split, on files that the tests write."""

import hashlib
import io
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifar_tune.datasets import (
    NUM_CLASSES,
    Archive,
    DatasetName,
    Images,
    Part,
    decode_batches,
    find_batches,
    find_source,
    load_images,
    load_training_data,
    published_archive,
    split,
    unpacked,
)
from cifar_tune.errors import UserError


def random_images(num_images: int, num_classes: int = 10, seed: int = 0) -> Images:
    random = np.random.RandomState(seed)
    pixels = random.randint(0, 256, (num_images, 3, 32, 32), dtype=np.uint8)
    return Images(pixels, random.permutation(num_images) % num_classes)


def encoded(pixels: npt.NDArray[np.uint8], image_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, image_format, lossless=True)
    return file.getvalue()


def cells(images: Images, image_format: str = "PNG") -> list[dict[str, Any]]:
    return [{"bytes": encoded(pixels, image_format), "path": None} for pixels in images.images]


def write_shard(path: Path, images: Images, image: str = "img", label: str = "label") -> Path:
    return write_columns(path, {image: cells(images), label: images.labels.tolist()})


def write_columns(path: Path, columns: dict[str, list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def one_shard(folder: Path, part: Part = "train") -> Path:
    return folder / f"{part}-00000-of-00001.parquet"


def load(data_dir: Path, name: DatasetName = "cifar10", part: Part = "train") -> Images:
    return load_images(name, part, data_dir=data_dir, store=data_dir.parent / "store")[0]


def assert_same(loaded: Images, written: Images) -> None:
    np.testing.assert_array_equal(loaded.images, written.images)
    np.testing.assert_array_equal(loaded.labels, written.labels)
    assert loaded.images.dtype == np.uint8
    assert loaded.labels.dtype == np.int64


# The split


def stamped(num_images: int, num_classes: int = 10) -> Images:
    """Images whose first two pixels spell their index, so that a split can be followed."""
    images = np.zeros((num_images, 3, 32, 32), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(num_images), 256)
    return Images(images, np.arange(num_images) % num_classes)


def indices(images: Images) -> list[int]:
    return [256 * int(high) + int(low) for high, low in images.images[:, 0, 0, :2]]


def test_validation_is_a_stratified_tenth_and_nothing_is_lost_or_shared() -> None:
    train, val = split(stamped(10_000), None)
    assert (len(train), len(val)) == (9_000, 1_000)
    assert np.bincount(val.labels).tolist() == [100] * 10
    assert sorted(indices(train) + indices(val)) == list(range(10_000))


def test_the_split_never_changes() -> None:
    _, val = split(stamped(10_000), None)
    assert indices(val)[:5] == indices(split(stamped(10_000), None)[1])[:5] == [9780, 4981, 9902, 5053, 2534]


@pytest.mark.parametrize(("train_images", "num_val"), [(1, 500), (1_000, 500), (6_300, 700), (9_000, 1_000)])
def test_a_subset_takes_n_and_a_ninth_but_500_at_least_and_the_pool_at_most(train_images: int, num_val: int) -> None:
    train, val = split(stamped(10_000), train_images)
    assert (len(train), len(val)) == (train_images, num_val)


def test_subsets_are_nested_and_stratified() -> None:
    full, full_val = split(stamped(10_000), None)
    larger, larger_val = split(stamped(10_000), 5_400)
    smaller, smaller_val = split(stamped(10_000), 4_507)
    assert set(indices(smaller)) < set(indices(larger)) < set(indices(full))
    assert set(indices(smaller_val)) < set(indices(larger_val)) < set(indices(full_val))
    assert np.ptp(np.bincount(smaller.labels)) <= 1
    assert np.ptp(np.bincount(smaller_val.labels)) <= 1


def test_unequal_classes_keep_their_proportions() -> None:
    images = replace(stamped(1_000), labels=np.repeat([0, 1], [900, 100]))
    train, val = split(images, 90)
    assert np.bincount(split(images, None)[1].labels).tolist() == [90, 10]
    assert np.bincount(train.labels).tolist() == [81, 9]
    assert len(val) == 100


@pytest.mark.parametrize("train_images", [0, -1, 901])
def test_an_impossible_number_of_images_is_refused_with_what_there_is(train_images: int) -> None:
    with pytest.raises(UserError, match="1 to 900"):
        split(stamped(1_000), train_images)


# The hub's parquet export


@pytest.mark.parametrize("folder", ["", "plain_text", "cifar10/plain_text", "cifar10/snapshots/5a6b/plain_text"])
def test_a_parquet_export_is_found_where_people_keep_it(tmp_path: Path, folder: str) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data" / folder), written)
    data_dir = tmp_path / "data" if folder.count("/") < 3 else tmp_path / "data" / "cifar10"
    assert_same(load_images("cifar10", "train", data_dir=data_dir, store=tmp_path / "store")[0], written)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_images_are_decoded_by_content(tmp_path: Path, image_format: str) -> None:
    written = random_images(20)
    columns = {"img": cells(written, image_format), "label": written.labels.tolist()}
    write_columns(one_shard(tmp_path / "data"), columns)
    assert_same(load(tmp_path / "data"), written)


def test_older_exports_call_the_image_column_image(tmp_path: Path) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data"), written, image="image")
    assert_same(load(tmp_path / "data"), written)


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    written = random_images(30)
    for shard in reversed(range(3)):
        part = Images(written.images[shard * 10 :][:10], written.labels[shard * 10 :][:10])
        write_shard(tmp_path / "data" / f"train-{shard:05d}-of-00003.parquet", part)
    assert_same(load(tmp_path / "data"), written)


def test_of_two_datasets_in_a_folder_the_asked_one_is_read(tmp_path: Path) -> None:
    ten, hundred = random_images(20), random_images(200, 100, seed=1)
    write_shard(one_shard(tmp_path / "data" / "cifar10"), ten)
    write_shard(one_shard(tmp_path / "data" / "cifar100"), hundred, label="fine_label")
    assert_same(load(tmp_path / "data", "cifar10"), ten)
    assert_same(load(tmp_path / "data", "cifar100"), hundred)


def test_cifar100_is_read_by_its_fine_labels(tmp_path: Path) -> None:
    written = random_images(100, 100)
    coarse = (written.labels % 20).tolist()
    columns = {"img": cells(written), "coarse_label": coarse, "fine_label": written.labels.tolist()}
    write_columns(one_shard(tmp_path / "data"), columns)
    assert_same(load(tmp_path / "data", "cifar100"), written)


def test_the_same_dataset_twice_in_a_folder_is_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_shard(one_shard(tmp_path / "data" / folder), random_images(20))
    with pytest.raises(UserError, match="more than once"):
        load(tmp_path / "data")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "train-00001-of-00002.parquet", random_images(20))
    with pytest.raises(UserError, match="incomplete: train shard 00000 is missing"):
        load(tmp_path / "data")


def test_shards_of_two_exports_are_not_mixed(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "train-00000-of-00001.parquet", random_images(20))
    write_shard(tmp_path / "data" / "train-00000-of-00002.parquet", random_images(20))
    with pytest.raises(UserError, match="same total"):
        load(tmp_path / "data")


def test_a_class_without_images_is_incomplete(tmp_path: Path) -> None:
    write_shard(one_shard(tmp_path / "data"), random_images(20, num_classes=9))
    with pytest.raises(UserError, match="incomplete: it has no image of class 9"):
        load(tmp_path / "data")


def test_a_label_that_is_no_class_is_damage(tmp_path: Path) -> None:
    write_shard(one_shard(tmp_path / "data"), random_images(22, num_classes=11))
    with pytest.raises(UserError, match="outside 0 to 9"):
        load(tmp_path / "data")


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    shard = write_shard(one_shard(tmp_path / "data"), random_images(20))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{shard.name} is damaged"):
        load(tmp_path / "data")


def test_fewer_rows_than_the_file_promises_are_incomplete(tmp_path: Path) -> None:
    shard = write_shard(one_shard(tmp_path / "data"), random_images(20))
    before, after = shard.read_bytes().split(b"\x16\x28\x19")  # Thrift's field "num_rows": 20, zigzag coded
    shard.write_bytes(before + b"\x16\x2a\x19" + after)
    with pytest.raises(UserError, match=r"incomplete: 20 of its 21 rows"):
        load(tmp_path / "data")


@pytest.mark.parametrize(
    "columns",
    [
        {"img": [b""] * 10, "label": list(range(10))},
        {"picture": [b""] * 10, "label": list(range(10))},
        {"img": [{"bytes": b""}] * 10, "label": ["cat"] * 10},
        {"img": [{"bytes": b""}] * 10, "label": [None, *range(1, 10)]},
    ],
    ids=["image is no struct", "no image", "label is text", "no label"],
)
def test_a_parquet_file_with_other_columns_is_refused(tmp_path: Path, columns: dict[str, list[Any]]) -> None:
    write_columns(one_shard(tmp_path / "data"), columns)
    with pytest.raises(UserError, match="no export of CIFAR"):
        load(tmp_path / "data")


def test_an_unreadable_export_of_the_other_dataset_does_not_matter(tmp_path: Path) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data" / "cifar10"), written)
    other = write_shard(one_shard(tmp_path / "data" / "cifar100"), random_images(100, 100), label="fine_label")
    other.write_bytes(b"half a file")
    assert_same(load(tmp_path / "data"), written)


@pytest.mark.parametrize(
    "cell",
    [
        b"no image",
        b"",
        None,
        encoded(np.zeros((3, 32, 31), np.uint8)),
        encoded(np.zeros((3, 32, 32), np.uint8))[:-30],
    ],
    ids=["not an image", "empty", "null", "wrong size", "truncated"],
)
def test_an_image_that_cannot_be_decoded_names_its_file(tmp_path: Path, cell: bytes | None) -> None:
    images = random_images(20)
    columns = {"img": [*cells(images)[:-1], {"bytes": cell, "path": None}], "label": images.labels.tolist()}
    shard = write_columns(one_shard(tmp_path / "data"), columns)
    with pytest.raises(UserError, match=f"{shard.name} is damaged"):
        load(tmp_path / "data")


def test_a_grey_image_is_refused(tmp_path: Path) -> None:
    images = random_images(20)
    grey = io.BytesIO()
    Image.new("L", (32, 32)).save(grey, "PNG")
    columns = {"img": [*cells(images)[:-1], {"bytes": grey.getvalue(), "path": None}]}
    write_columns(one_shard(tmp_path / "data"), columns | {"label": images.labels.tolist()})
    with pytest.raises(UserError, match="not RGB"):
        load(tmp_path / "data")


def test_the_training_part_never_needs_the_test_files(tmp_path: Path) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data"), written)
    one_shard(tmp_path / "data", "test").write_bytes(b"never opened")
    assert_same(load(tmp_path / "data"), written)
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet is damaged"):
        load(tmp_path / "data", part="test")


# torchvision's layout


def pickled(images: Images, label_key: str = "labels") -> bytes:
    return pickle.dumps({"data": images.images.reshape(len(images), -1), label_key: images.labels.tolist()})


def write_batches(folder: Path, batches: dict[str, bytes], url: str = "http://127.0.0.1:9/") -> Archive:
    """The batch files in `folder`, all but the last for training, packed beside it; the archive that describes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in batches.items():
        (folder / file).write_bytes(content)
    packed = folder.parent / "tiny.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(folder, folder.name)
    *train, test = ((file, md5(content)) for file, content in batches.items())
    return Archive(
        dataset="cifar10",
        url=f"{url}{packed.name}",
        filename=packed.name,
        md5=md5(packed.read_bytes()),
        folder=folder.name,
        train=tuple(train),
        test=(test,),
        label_key="labels",
    )


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


TRAIN, TEST = random_images(40), random_images(20, seed=1)
BATCHES = {
    "data_batch_1": pickled(Images(TRAIN.images[:20], TRAIN.labels[:20])),
    "data_batch_2": pickled(Images(TRAIN.images[20:], TRAIN.labels[20:])),
    "test_batch": pickled(TEST),
}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """A small archive, unpacked and packed in tmp_path/data; the tests take away what they want missing."""
    return write_batches(tmp_path / "data" / "tiny-batches", BATCHES)


@pytest.mark.parametrize("data_dir", ["data", "data/tiny-batches"])
def test_pickled_batches_are_read_in_order(archive: Archive, tmp_path: Path, data_dir: str) -> None:
    assert_same(find_batches(archive, "train", tmp_path / data_dir, tmp_path / "store").decode(), TRAIN)
    assert_same(find_batches(archive, "test", tmp_path / data_dir, tmp_path / "store").decode(), TEST)


def test_a_packed_archive_is_unpacked_into_the_store_and_the_data_folder_is_left_alone(tmp_path: Path) -> None:
    archive = write_batches(tmp_path / "made" / "tiny-batches", BATCHES)
    (tmp_path / "data").mkdir()
    (tmp_path / "made" / archive.filename).rename(tmp_path / "data" / archive.filename)
    assert_same(find_batches(archive, "train", tmp_path / "data", tmp_path / "store").decode(), TRAIN)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [archive.filename]


def test_a_damaged_packed_archive_is_named(archive: Archive, tmp_path: Path) -> None:
    packed = tmp_path / "data" / archive.filename
    packed.write_bytes(packed.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"tiny.tar.gz is damaged"):
        unpacked(archive, "train", tmp_path / "downloads", packed)


class Tripwire:
    """Unpickling one of these leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_batch_with_a_wrong_checksum_is_named_and_never_unpickled(archive: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "data" / archive.folder
    (folder / "data_batch_2").write_bytes(pickle.dumps(Tripwire(tmp_path / "sprung")))
    with pytest.raises(UserError, match="data_batch_2 is damaged"):
        decode_batches(archive, "train", folder)
    assert not (tmp_path / "sprung").exists()


def test_a_missing_batch_is_named(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "data" / archive.folder / "data_batch_2").unlink()
    with pytest.raises(UserError, match=r"incomplete: .*data_batch_2 is missing"):
        find_batches(archive, "train", tmp_path / "data", tmp_path / "store")


def test_the_training_batches_never_need_the_test_batch(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "data" / archive.folder / "test_batch").unlink()
    assert_same(find_batches(archive, "train", tmp_path / "data", tmp_path / "store").decode(), TRAIN)


def test_a_batch_with_fewer_labels_than_images_is_incomplete(tmp_path: Path) -> None:
    short = {"data": TRAIN.images.reshape(len(TRAIN), -1), "labels": TRAIN.labels[:-1].tolist()}
    archive = write_batches(tmp_path / "tiny-batches", {"data_batch_1": pickle.dumps(short), "test_batch": b""})
    with pytest.raises(UserError, match="data_batch_1 is incomplete: 40 images, 39 labels"):
        decode_batches(archive, "train", tmp_path / "tiny-batches")


@pytest.mark.parametrize(("name", "label_key"), [("cifar10", "labels"), ("cifar100", "fine_labels")])
def test_the_published_archives_are_torchvisions(name: DatasetName, label_key: str) -> None:
    archive = published_archive(name)
    assert archive.url.endswith(archive.filename)
    assert archive.label_key == label_key
    assert len(archive.test) == 1
    assert all(len(checksum) == 32 for _, checksum in (*archive.train, *archive.test))


# The download


class QuietHandler(SimpleHTTPRequestHandler):
    """Files as they are, but below /short/ only their last 100 bytes, under headers that announce all."""

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        file = super().send_head()
        if file is not None and self.path.startswith("/short/"):
            file.seek(-100, io.SEEK_END)
        return file


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    """Serves tmp_path/data on a free local port."""
    handler = partial(QuietHandler, directory=str(tmp_path / "data"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def served(archive: Archive, server: ThreadingHTTPServer) -> Archive:
    return replace(archive, url=f"http://127.0.0.1:{server.server_port}/{archive.filename}")


def test_a_download_is_verified_unpacked_and_kept(served: Archive, tmp_path: Path, server: ThreadingHTTPServer) -> None:
    assert_same(find_batches(served, "train", None, tmp_path / "store").decode(), TRAIN)
    server.shutdown()
    server.server_close()
    assert_same(find_batches(served, "test", None, tmp_path / "store").decode(), TEST)


def test_a_download_with_a_wrong_checksum_is_refused_and_not_unpacked(served: Archive, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not the published tiny.tar.gz .* --data-dir"):
        find_batches(replace(served, md5="0" * 32), "train", None, tmp_path / "store")
    assert not (tmp_path / "store" / "downloads" / served.folder).exists()


@pytest.mark.parametrize("broken", ["tiny.tar.gz", "tiny-batches/data_batch_1"])
def test_a_truncated_earlier_download_is_fetched_again(served: Archive, tmp_path: Path, broken: str) -> None:
    left = tmp_path / "store" / "downloads" / broken
    left.parent.mkdir(parents=True)
    left.write_bytes((tmp_path / "data" / broken).read_bytes()[:100])
    assert_same(find_batches(served, "train", None, tmp_path / "store").decode(), TRAIN)


def test_a_download_that_breaks_off_is_refused_and_the_next_one_starts_again(served: Archive, tmp_path: Path) -> None:
    (tmp_path / "data" / "short").mkdir()
    shutil.copy(tmp_path / "data" / served.filename, tmp_path / "data" / "short")
    short = replace(served, url=served.url.replace("tiny.tar.gz", "short/tiny.tar.gz"))
    with pytest.raises(UserError, match="--data-dir"):
        find_batches(short, "train", None, tmp_path / "store")
    assert_same(find_batches(served, "train", None, tmp_path / "store").decode(), TRAIN)


def test_two_that_need_the_archive_at_once_download_it_once(served: Archive, tmp_path: Path) -> None:
    def time_of_unpacking(_: int) -> int:
        find_batches(served, "train", None, tmp_path / "store")
        return (tmp_path / "store" / "downloads" / served.folder / "data_batch_1").stat().st_ctime_ns

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(time_of_unpacking, range(2))
    assert first == second


def test_without_a_network_the_user_learns_how_to_bring_the_data(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        find_batches(archive, "train", None, tmp_path / "store")
    for hint in ("--data-dir", "CIFAR_TUNE_DATA_DIR", "tiny-batches/", "tiny.tar.gz", "train-*.parquet"):
        assert hint in str(refused.value)


# What is not there


def test_a_data_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py/"), ("cifar100", "cifar-100-python/")])
def test_a_data_folder_without_the_dataset_says_what_was_looked_for(
    tmp_path: Path, name: DatasetName, folder: str
) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError) as refused:
        load(tmp_path / "data", name)
    assert folder in str(refused.value)
    assert "train-*.parquet" in str(refused.value)


def test_an_unknown_dataset_is_an_error_that_lists_the_choices(tmp_path: Path) -> None:
    name: Any = "mnist"
    with pytest.raises(UserError, match="cifar10, cifar100, shapes"):
        find_source(name, "train", None, tmp_path)


# The cache


def cache_files(store: Path) -> list[Path]:
    return sorted((store / "cache").glob("*.npz"))


def test_a_second_load_reads_the_cache_and_decodes_nothing(tmp_path: Path) -> None:
    write_shard(one_shard(tmp_path / "data"), random_images(20))
    first = load(tmp_path / "data")
    (cached,) = cache_files(tmp_path / "store")
    other = random_images(20, seed=1)
    np.savez(cached, images=other.images, labels=other.labels)
    assert_same(load(tmp_path / "data"), other)
    assert (first.images != other.images).any()


def test_the_cache_is_keyed_by_content_not_by_path(tmp_path: Path) -> None:
    shard = write_shard(one_shard(tmp_path / "data"), random_images(20))
    load(tmp_path / "data")
    shard.rename(tmp_path / "data" / "train-00000-of-00001-0a1b2c.parquet")
    load(tmp_path / "data")
    assert len(cache_files(tmp_path / "store")) == 1
    changed = random_images(20, seed=1)
    (tmp_path / "data" / "train-00000-of-00001-0a1b2c.parquet").unlink()
    write_shard(shard, changed)
    assert_same(load(tmp_path / "data"), changed)
    assert len(cache_files(tmp_path / "store")) == 2


@pytest.mark.parametrize("content", [b"", b"no archive", None], ids=["empty", "rubbish", "truncated"])
def test_an_unreadable_cache_file_is_made_again(tmp_path: Path, content: bytes | None) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data"), written)
    load(tmp_path / "data")
    (cached,) = cache_files(tmp_path / "store")
    whole = cached.read_bytes()
    cached.write_bytes(whole[:-200] if content is None else content)
    assert_same(load(tmp_path / "data"), written)
    assert len(cached.read_bytes()) == len(whole)


def test_a_pickle_in_the_cache_is_never_loaded(tmp_path: Path) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data"), written)
    load(tmp_path / "data")
    (cached,) = cache_files(tmp_path / "store")
    np.savez(cached, images=np.array([Tripwire(tmp_path / "sprung")], dtype=object), labels=written.labels)
    assert_same(load(tmp_path / "data"), written)
    assert not (tmp_path / "sprung").exists()


def test_parts_share_a_folder_but_no_digest(tmp_path: Path) -> None:
    digests = [load_images("shapes", part, data_dir=None, store=tmp_path)[1] for part in ("train", "test")]
    assert len(set(digests)) == 2
    assert [path.name[:-20] for path in cache_files(tmp_path)] == ["shapes-test-", "shapes-train-"]


def test_training_data_is_the_split_of_the_training_part(tmp_path: Path) -> None:
    data = load_training_data("shapes", train_images=2_000, data_dir=None, store=tmp_path)
    images, digest = load_images("shapes", "train", data_dir=None, store=tmp_path)
    assert_same(data.train, split(images, 2_000)[0])
    assert_same(data.val, split(images, 2_000)[1])
    assert (data.dataset, data.digest, data.num_classes) == ("shapes", digest, NUM_CLASSES["shapes"])


def test_importing_the_module_imports_no_torch() -> None:
    program = "import sys, cifar_tune.datasets; sys.exit(any(m in sys.modules for m in ('torch', 'torchvision')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
