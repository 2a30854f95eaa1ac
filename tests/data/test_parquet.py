"""The hub's Parquet export, on shards that the tests write: what is located, decoded and refused."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.image_files import assert_same, cells, encoded, one_shard, random_images, write_columns, write_shard
from PIL import Image

from cifar_tune.data.images import CLASS_NAMES, DatasetName, Images
from cifar_tune.data.parquet import find_parquet
from cifar_tune.errors import UserError


def load(data_dir: Path, name: DatasetName = "cifar10") -> Images:
    source = find_parquet(name, "train", data_dir)
    assert source is not None
    return source.decode()


@pytest.mark.parametrize("folder", ["", "plain_text", "cifar10/plain_text", "cifar10/snapshots/5a6b/plain_text"])
def test_a_parquet_export_is_located_where_people_keep_it(tmp_path: Path, folder: str) -> None:
    written = random_images(20)
    write_shard(one_shard(tmp_path / "data" / folder), written)
    data_dir = tmp_path / "data" if folder.count("/") < 3 else tmp_path / "data" / "cifar10"
    assert_same(load(data_dir), written)


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


@pytest.mark.parametrize(
    "names",
    [
        CLASS_NAMES["cifar100"],
        CLASS_NAMES["cifar100"][::-1],
        sorted(str(number) for number in range(100)),  # as `datasets` encodes whole numbers
        ["other", *CLASS_NAMES["cifar100"][1:]],
        None,
    ],
)
def test_classes_that_the_file_lists_in_another_order_get_their_usual_numbers(
    tmp_path: Path, names: list[str] | None
) -> None:
    written = random_images(100, 100)
    usual = CLASS_NAMES["cifar100"] if names and set(names) == set(CLASS_NAMES["cifar100"]) else None
    usual = usual or ([str(number) for number in range(100)] if names and "99" in names else names) or []
    order = [names.index(name) for name in usual] if names else list(range(100))
    shard = write_columns(
        one_shard(tmp_path / "data"),
        {"img": cells(written), "fine_label": [order[label] for label in written.labels]},
    )
    features = {"img": {"_type": "Image"}, "fine_label": {"names": names, "_type": "ClassLabel"}}
    table = pq.read_table(shard).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, shard)
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
