"""The layout of torchvision and the download, on small archives that the tests write and serve."""

import io
import pickle
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.image_files import Tripwire, assert_same, md5, random_images
from helpers.serving import serving

from cifar_tune.data.archive import Archive, decode_batches, find_batches, published_archive, unpacked
from cifar_tune.data.images import DatasetName, Images
from cifar_tune.errors import UserError


def pickled(images: Images, label_key: str = "labels") -> bytes:
    return pickle.dumps({"data": images.images.reshape(len(images), -1), label_key: images.labels.tolist()})


def write_batches(folder: Path, batches: dict[str, bytes], url: str = "http://127.0.0.1:9/") -> Archive:
    """Write the batch files, all but the last for training, and pack them beside the folder; the archive of them."""
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


TRAIN, TEST = random_images(40), random_images(20, seed=1)
BATCHES = {
    "data_batch_1": pickled(Images(TRAIN.images[:20], TRAIN.labels[:20])),
    "data_batch_2": pickled(Images(TRAIN.images[20:], TRAIN.labels[20:])),
    "test_batch": pickled(TEST),
}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """A small archive, unpacked and packed in tmp_path/data; tests delete what they want to be missing."""
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


def test_a_batch_with_a_wrong_checksum_is_named_and_never_unpickled(archive: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "data" / archive.folder
    (folder / "data_batch_2").write_bytes(pickle.dumps(Tripwire(tmp_path / "sprung")))
    with pytest.raises(UserError, match="data_batch_2 is damaged"):
        decode_batches(archive, "train", folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize(
    "name", ["../evil", "{folder}/evil", "tiny-batches/../../../evil", "tiny-batches/data_batch_1"]
)
def test_of_an_archive_nothing_but_batches_is_written(tmp_path: Path, kind: bytes, name: str) -> None:
    """A member may have any name, and be a link to anything."""
    made = write_batches(tmp_path / "made" / "tiny-batches", BATCHES)
    packed = tmp_path / "data" / made.filename
    packed.parent.mkdir()
    with tarfile.open(packed, "w:gz") as tar:
        member = tarfile.TarInfo(name.format(folder=tmp_path))
        member.type, member.linkname = kind, f"{tmp_path}/made/tiny-batches/data_batch_1"
        member.size = 4 if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(b"evil"))
        tar.add(tmp_path / "made" / "tiny-batches", "tiny-batches")
    archive = replace(made, md5=md5(packed.read_bytes()))
    assert_same(find_batches(archive, "train", packed.parent, tmp_path / "store").decode(), TRAIN)
    assert {path.name for path in (tmp_path / "store" / "downloads" / "tiny-batches").iterdir()} == BATCHES.keys()
    assert not list(tmp_path.rglob("*evil*"))


def test_a_batch_with_the_right_checksum_runs_no_code_all_the_same(tmp_path: Path) -> None:
    content = pickle.dumps({"data": Tripwire(tmp_path / "sprung"), "labels": []})
    archive = write_batches(tmp_path / "data" / "tiny-batches", {**BATCHES, "data_batch_1": content})
    with pytest.raises(UserError, match=r"data_batch_1 holds no batch of labels \(pathlib.Path.touch is no part of"):
        find_batches(archive, "train", tmp_path / "data", tmp_path / "store").decode()
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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    """Serves tmp_path/data on a free local port."""
    with serving(tmp_path / "data") as running:
        yield running


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
