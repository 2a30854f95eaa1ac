"""Data sets by name: the table, which source is read, and the cache, on files that the tests write."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from helpers.image_files import Tripwire, assert_same, one_shard, random_images, write_shard

from cifar_tune.data import cache, shapes
from cifar_tune.data.datasets import find_source, load_test_images, load_training_data
from cifar_tune.data.images import DATASETS, NUM_CLASSES, NUM_IMAGES, DatasetName, Images, Ints, Labelled
from cifar_tune.data.split import training_order
from cifar_tune.errors import UserError


def load(data_dir: Path, name: DatasetName = "cifar10") -> Images:
    """All images of the training files in the order of the split, those for validation last."""
    data = load_training_data(name, train_images=None, data_dir=data_dir, store=data_dir.parent / "store")
    return data.train.followed_by(data.val)


def split(images: Images) -> Images:
    """Images in the order of the split."""
    order = training_order(images.labels)
    return Images(images.images[order], images.labels[order])


# What is read, and what is not there


def test_every_name_of_a_data_set_is_in_the_table() -> None:
    assert tuple(DATASETS) == get_args(DatasetName)


def test_the_built_in_data_set_has_the_images_that_the_table_says(tmp_path: Path) -> None:
    data = load_training_data("shapes", train_images=None, data_dir=None, store=tmp_path)
    assert len(data.train) + len(data.val) == DATASETS["shapes"].num_images == NUM_IMAGES["shapes"]


def test_the_training_part_never_needs_the_test_files(tmp_path: Path) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data"), written)
    one_shard(tmp_path / "data", "test").write_bytes(b"never opened")
    assert_same(load(tmp_path / "data"), split(written))
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet is damaged"):
        load_test_images("cifar10", data_dir=tmp_path / "data", store=tmp_path / "store")


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
    name: Any = "imagenet"
    with pytest.raises(UserError, match="cifar10, cifar100, svhn, mnist"):
        find_source(name, "train", None, tmp_path)


# The cache


def cache_files(store: Path) -> list[Path]:
    return sorted((store / "cache").glob("*.npy"))


def as_they_come(labels: Ints) -> Ints:
    return np.arange(len(labels))


def test_a_second_load_reads_the_cache_and_decodes_nothing(tmp_path: Path) -> None:
    write_shard(one_shard(tmp_path / "data"), random_images(20))
    first = load(tmp_path / "data")
    (cached,) = cache_files(tmp_path / "store")
    other = random_images(20, seed=1)
    cache.write_cache(cached, Labelled(other.labels, [other.images]), as_they_come, 32)
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
    assert_same(load(tmp_path / "data"), split(changed))
    assert len(cache_files(tmp_path / "store")) == 2


@pytest.mark.parametrize("content", [b"", b"no array", None], ids=["empty", "rubbish", "truncated"])
@pytest.mark.parametrize("suffix", [".npy", ".labels.npz"])
def test_an_unreadable_cache_file_is_made_again(tmp_path: Path, content: bytes | None, suffix: str) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data"), written)
    load(tmp_path / "data")
    damaged = cache_files(tmp_path / "store")[0].with_suffix(suffix)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-200] if content is None else content)
    assert_same(load(tmp_path / "data"), split(written))
    assert damaged.read_bytes() == whole


def test_a_changed_pixel_in_the_cache_is_noticed(tmp_path: Path) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data"), written)
    load(tmp_path / "data")
    (cached,) = cache_files(tmp_path / "store")
    content = bytearray(cached.read_bytes())
    content[-1] ^= 1
    cached.write_bytes(content)
    assert_same(load(tmp_path / "data"), split(written))


def test_a_pickle_in_the_cache_is_never_loaded(tmp_path: Path) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data"), written)
    load(tmp_path / "data")
    (cached,) = cache_files(tmp_path / "store")
    np.save(cached, np.array([Tripwire(tmp_path / "sprung")], dtype=object))
    assert_same(load(tmp_path / "data"), split(written))
    assert not (tmp_path / "sprung").exists()


def test_large_images_stay_in_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read where they are needed, and their place is sent to a worker."""
    write_shard(one_shard(tmp_path / "data"), random_images(40))
    in_memory = load_training_data("cifar10", train_images=None, data_dir=tmp_path / "data", store=tmp_path / "store")
    monkeypatch.setattr(cache, "MAX_IN_MEMORY", 1)
    mapped = load_training_data("cifar10", train_images=None, data_dir=tmp_path / "data", store=tmp_path / "store")
    sent = pickle.dumps(mapped)
    assert len(sent) < 3_000 < mapped.val.images.nbytes
    for data in (mapped, pickle.loads(sent), pickle.loads(pickle.dumps(in_memory))):
        assert data.digest == in_memory.digest
        assert_same(data.train, in_memory.train)
        assert_same(data.val, in_memory.val)
        assert_same(data.all_for_training().train, in_memory.train.followed_by(in_memory.val))
    assert isinstance(mapped.all_for_training().train, cache.MappedImages)
    part = mapped.train.part(2, 9).part(1, 3)
    assert_same(pickle.loads(pickle.dumps(part)), in_memory.train.part(3, 5))


def test_parts_share_a_folder_but_no_digest(tmp_path: Path) -> None:
    train = load_training_data("shapes", train_images=None, data_dir=None, store=tmp_path)
    test = load_test_images("shapes", data_dir=None, store=tmp_path)
    assert train.digest != test.digest
    assert [path.name[:-20] for path in cache_files(tmp_path)] == ["shapes-test-", "shapes-train-"]


def test_training_data_is_the_split_of_the_training_part(tmp_path: Path) -> None:
    data = load_training_data("shapes", train_images=2_000, data_dir=None, store=tmp_path)
    images = split(Images(*shapes.generate("train")))
    assert_same(data.train, images.part(0, 2_000))
    assert_same(data.val, images.part(9_000, 9_500))
    assert (data.dataset, data.num_classes) == ("shapes", NUM_CLASSES["shapes"])


def test_importing_the_module_imports_no_torch() -> None:
    program = "import sys, cifar_tune.data.datasets; sys.exit(any(m in sys.modules for m in ('torch', 'torchvision')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
