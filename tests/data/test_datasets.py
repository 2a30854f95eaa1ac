"""Data sets by name: the table, which source is read, and the cache, on files that the tests write."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from helpers.image_files import Tripwire, assert_same, one_shard, random_images, write_shard

from cifar_tune.data.datasets import find_source, load_images, load_training_data
from cifar_tune.data.images import DATASETS, NUM_CLASSES, NUM_IMAGES, DatasetName, Images, Part
from cifar_tune.data.split import split_images
from cifar_tune.errors import UserError


def load(data_dir: Path, name: DatasetName = "cifar10", part: Part = "train") -> Images:
    return load_images(name, part, data_dir=data_dir, store=data_dir.parent / "store")[0]


# What is read, and what is not there


def test_every_name_of_a_data_set_is_in_the_table() -> None:
    assert tuple(DATASETS) == get_args(DatasetName)


def test_the_built_in_data_set_has_the_images_that_the_table_says(tmp_path: Path) -> None:
    images = load_images("shapes", "train", data_dir=None, store=tmp_path).images
    assert len(images) == DATASETS["shapes"].num_images == NUM_IMAGES["shapes"]


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
    name: Any = "imagenet"
    with pytest.raises(UserError, match="cifar10, cifar100, svhn, mnist"):
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
    images, digest, _ = load_images("shapes", "train", data_dir=None, store=tmp_path)
    for ours, expected in zip((data.train, data.val), split_images(images, 2_000), strict=True):
        assert_same(ours, expected)
    assert (data.dataset, data.digest, data.num_classes) == ("shapes", digest, NUM_CLASSES["shapes"])


def test_importing_the_module_imports_no_torch() -> None:
    program = "import sys, cifar_tune.data.datasets; sys.exit(any(m in sys.modules for m in ('torch', 'torchvision')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
