"""Datasets: which source is read, the split and the cache, on files that the tests write."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.image_files import Tripwire, assert_same, one_shard, random_images, write_shard

from cifar_tune.data.datasets import find_source, load_images, load_training_data, split
from cifar_tune.data.images import NUM_CLASSES, DatasetName, Images, Part
from cifar_tune.errors import UserError


def load(data_dir: Path, name: DatasetName = "cifar10", part: Part = "train") -> Images:
    return load_images(name, part, data_dir=data_dir, store=data_dir.parent / "store")[0]


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


# What is read, and what is not there


def test_the_training_part_never_needs_the_test_files(tmp_path: Path) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data"), written)
    one_shard(tmp_path / "data", "test").write_bytes(b"never opened")
    assert_same(load(tmp_path / "data"), written)
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet is damaged"):
        load(tmp_path / "data", part="test")


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
    program = "import sys, cifar_tune.data.datasets; sys.exit(any(m in sys.modules for m in ('torch', 'torchvision')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
