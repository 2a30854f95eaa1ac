"""A user's own images, in each layout of files: the parts, the classes, and what is no such layout."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.image_files import Tripwire, assert_same, cells, random_images
from PIL import Image

from cifar_tune.data.collection import Collection, numbered
from cifar_tune.data.datasets import load_test_images, load_training_data
from cifar_tune.data.digits import digits
from cifar_tune.data.images import CLASS_NAMES, DATASETS, OWN, DatasetName, Images, OwnPart, TrainingData
from cifar_tune.data.own_folder import find_folder
from cifar_tune.data.own_npz import find_npz
from cifar_tune.data.own_parquet import find_own_parquet
from cifar_tune.data.split import OWN_SPLIT, stratified_order
from cifar_tune.errors import UserError

NAMES = ["cat", "dog", "owl"]
PARTS: tuple[OwnPart, ...] = ("train", "val", "test")


def in_order(num_images: int, seed: int = 0) -> Images:
    """Random images of three classes, sorted by class, as a folder has them."""
    images = random_images(num_images, len(NAMES), seed)
    order = np.argsort(images.labels, kind="stable")
    return Images(images.images[order], images.labels[order])


def write_folder(folder: Path, images: Images, names: Sequence[str] = NAMES) -> Path:
    for number, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
        path = folder / names[label] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
    return folder


def write_parquet(path: Path, images: Images, names: Sequence[str] | None = NAMES) -> Path:
    table = pa.table({"image": cells(images), "label": images.labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def write_npz(path: Path, parts: Mapping[OwnPart, Images]) -> Path:
    arrays: dict[str, Any] = {f"{part}_images": images.images.transpose(0, 2, 3, 1) for part, images in parts.items()}
    arrays |= {f"{part}_labels": images.labels[:, None] for part, images in parts.items()}
    np.savez(path, class_names=NAMES, **arrays)
    return path


def write_layouts(root: Path, parts: Mapping[OwnPart, Images]) -> dict[DatasetName, Path]:
    """The same images in each layout."""
    for part, images in parts.items():
        write_folder(root / "folder" / part, images)
        write_parquet(root / "parquet" / "data" / f"{part}-00000-of-00001.parquet", images)
    (root / "npz").mkdir()
    write_npz(root / "npz" / "images.npz", parts)
    return {"folder": root / "folder", "parquet": root / "parquet", "npz": root / "npz"}


def load(name: DatasetName, data_dir: Path, image_size: int = 32) -> TrainingData:
    store = data_dir.parent / "store"
    return load_training_data(
        name, train_images=None, data_dir=data_dir, store=store, image_size=image_size, num_classes=3
    )


def whole(collection: Collection, part: OwnPart) -> Images:
    source = collection.source(part, 32)
    assert source is not None
    return source.decode()


# All layouts


def test_every_layout_gives_the_same_images_parts_and_classes(tmp_path: Path) -> None:
    written = {part: in_order(30, seed) for seed, part in enumerate(PARTS)}
    for name, data_dir in write_layouts(tmp_path, written).items():
        data = load(name, data_dir)
        assert list(data.class_names) == NAMES
        order = stratified_order(written["train"].labels, OWN_SPLIT.seed)
        assert_same(data.train, Images(written["train"].images[order], written["train"].labels[order]))
        assert_same(data.val, written["val"])
        assert_same(load_test_images(name, data_dir=data_dir, store=tmp_path).images, written["test"])


def test_every_layout_is_split_in_the_same_way_where_it_has_one_part(tmp_path: Path) -> None:
    written = in_order(150)
    tests, datas = [], []
    for name, data_dir in write_layouts(tmp_path, {"train": written}).items():
        datas.append(load(name, data_dir))
        tests.append(load_test_images(name, data_dir=data_dir, store=tmp_path).images)
    for data, test in zip(datas, tests, strict=True):
        assert [len(part) for part in (data.train, data.val, test)] == [96, 24, 30]
        assert np.bincount(test.labels).tolist() == [10, 10, 10]
        assert_same(data.train, datas[0].train)
        assert_same(test, tests[0])
    parts = [{each.tobytes() for each in part.images} for part in (datas[0].train, datas[0].val, tests[0])]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 150


@pytest.mark.parametrize("name", OWN)
def test_a_search_reads_no_test_image(tmp_path: Path, name: DatasetName) -> None:
    data_dir = write_layouts(tmp_path, {part: in_order(30, seed) for seed, part in enumerate(PARTS)})[name]
    if name == "folder":
        for path in (data_dir / "test").rglob("*.png"):
            path.write_bytes(b"never opened")
    elif name == "parquet":
        names = {"image": [b"never opened"] * 3, "label": [0, 1, 2]}
        pq.write_table(pa.table(names), data_dir / "data" / "test-00000-of-00001.parquet")
    else:
        arrays = dict(np.load(data_dir / "images.npz"))
        np.savez(data_dir / "images.npz", **{**arrays, "test_images": np.zeros(3)})
    assert len(load(name, data_dir).train) == 30
    with pytest.raises(UserError, match=r"cannot be used|has the shape"):
        load_test_images(name, data_dir=data_dir, store=tmp_path)


@pytest.mark.parametrize("name", OWN)
def test_images_are_resized_and_sizes_are_cached_apart(tmp_path: Path, name: DatasetName) -> None:
    data_dir = write_layouts(tmp_path, {part: in_order(30) for part in PARTS})[name]
    small, large = load(name, data_dir, 28), load(name, data_dir, 64)
    assert (small.train.images.shape, large.val.images.shape) == ((30, 3, 28, 28), (30, 3, 64, 64))
    assert small.digest != large.digest


@pytest.mark.parametrize("name", OWN)
def test_another_number_of_classes_than_the_recipe_says_is_named(tmp_path: Path, name: DatasetName) -> None:
    data_dir = write_layouts(tmp_path, {"train": in_order(60)})[name]
    with pytest.raises(UserError, match=r"holds 3 classes \(cat, dog, owl\), but the recipe says num_classes=4"):
        load_training_data(name, train_images=None, data_dir=data_dir, store=tmp_path, num_classes=4)


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("name", OWN)
def test_a_class_without_an_image_in_a_part_is_named(tmp_path: Path, name: DatasetName, part: OwnPart) -> None:
    some = in_order(30)
    lacking = Images(some.images[some.labels != 1], some.labels[some.labels != 1])
    data_dir = write_layouts(tmp_path, {"train": some, "val": some, "test": some, part: lacking})[name]
    with pytest.raises(UserError, match=f"the {part} part has no image of class 'dog'"):
        load(name, data_dir)


@pytest.mark.parametrize("name", OWN)
def test_an_empty_folder_is_a_sentence(tmp_path: Path, name: DatasetName) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty .*(holds no|holds none)"):
        load(name, tmp_path / "empty")
    with pytest.raises(UserError, match="say where they are with --data-dir"):
        load_training_data(name, train_images=None, data_dir=None, store=tmp_path)


def test_part_of_the_training_images_is_validated_on_the_whole_validation_part(tmp_path: Path) -> None:
    written = {part: in_order(30, seed) for seed, part in enumerate(PARTS)}
    data_dir = write_layouts(tmp_path, written)["folder"]
    data = load_training_data("folder", train_images=9, data_dir=data_dir, store=tmp_path)
    assert (np.bincount(data.train.labels).tolist(), len(data.val)) == ([3, 3, 3], 30)
    with pytest.raises(UserError, match="choose 1 to 30"):
        load_training_data("folder", train_images=31, data_dir=data_dir, store=tmp_path)


def test_classes_are_numbered_by_number_or_by_name() -> None:
    names, labels = numbered(["10", "9", "10"])
    assert (names, labels.tolist()) == (["9", "10"], [1, 0, 1])
    assert numbered(["b", "10", "a"])[0] == ["10", "a", "b"]


# Folders


def test_images_of_all_kinds_below_a_class_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = [f"a/{name}" for name in ("1.PNG", "deep/2.bmp", "e.gif", "f.jfif", "g.png")]
    names += [f"b/{name}" for name in ("3.jpeg", "4.tif", "5.webp", "6.pgm", "7.TIFF")]
    for number, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (50, 40), 25 * number).save(path, "JPEG" if path.suffix == ".jfif" else None)
    for left_by_a_system in ("a/.DS_Store", "a/._1.png", ".git/x.png", "__MACOSX/a/1.png", "b/notes.txt"):
        (tmp_path / left_by_a_system).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left_by_a_system).write_bytes(b"no image")
    collection = find_folder(tmp_path)
    assert list(collection.class_names) == ["a", "b"]
    images = collection.train.read(np.arange(10), 32)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), range(0, 250, 25), atol=1)


def test_a_test_folder_without_labels_is_left_alone(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", in_order(150))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.png").write_bytes(b"never opened")
    assert len(whole(find_folder(tmp_path), "test")) == 30


def test_a_class_that_training_does_not_have_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", in_order(30))
    write_folder(tmp_path / "test", in_order(30), ["cat", "dog", "fox"])
    with pytest.raises(UserError, match=r"test/fox is no class of the training images"):
        find_folder(tmp_path)


def test_a_pipe_or_a_socket_among_the_images_is_not_waited_for(tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", in_order(30))
    os.mkfifo(tmp_path / "mine" / "dog" / "0.png")
    os.mkfifo(tmp_path / "mine" / "labels.csv")
    (tmp_path / "mine" / "dog" / "1.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "mine" / "dog" / "2.png"))
        collection = find_folder(tmp_path / "mine")
    assert len(whole(collection, "train")) + len(whole(collection, "test")) == 30
    (tmp_path / "mine" / "dog" / "gone.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"dog/gone\.png cannot be read \(No such file or directory\)"):
        load("folder", tmp_path / "mine")


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path / "mine", in_order(30))
    (tmp_path / "mine" / "dog" / "0000.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"dog/0000\.png cannot be used: it is no image that can be read; replace"):
        whole(find_folder(tmp_path / "mine"), "train")


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, in_order(30), ["cat"] * 3)
    with pytest.raises(UserError, match="has fewer than two classes; point --data-dir"):
        find_folder(tmp_path)


@pytest.mark.parametrize("header", ["id,breed", "image,width,label"])
@pytest.mark.parametrize("suffix", ["", ".png"])
def test_a_csv_labels_the_images_of_a_flat_folder(tmp_path: Path, header: str, suffix: str) -> None:
    written = in_order(60)
    (tmp_path / "images").mkdir()
    rows = [header]
    for number, (pixels, label) in enumerate(zip(written.images, written.labels, strict=True)):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "images" / f"x{number:02d}.png")
        rows.append(",".join([f"x{number:02d}{suffix}", *["7"] * (header.count(",") - 1), NAMES[label]]))
    (tmp_path / "train_labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "sample_submission.csv").write_text("id,breed\n99,cat\n")
    (tmp_path / "test").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "test" / "99.png")
    collection = find_folder(tmp_path)
    assert list(collection.class_names) == NAMES
    assert_same(Images(collection.train.read(np.arange(60), 32), collection.train.labels), written)


def write_kaggle(root: Path, part: str, value: int, header: str = "id,breed") -> Path:
    """Ten images in a folder of one part without class folders, and a CSV of the same name beside it."""
    (root / part).mkdir(parents=True)
    for number in range(10):
        Image.new("L", (32, 32), value + number).save(root / part / f"{number}.png")
    rows = [",".join([str(number), "ab"[number % 2]][: 1 + header.count(",")]) for number in range(10)]
    (root / f"{part}.csv").write_text("\n".join([header, *rows]))
    return root / f"{part}.csv"


def test_each_part_may_have_a_csv_of_its_own(tmp_path: Path) -> None:
    tables = {part: write_kaggle(tmp_path, part, value) for part, value in (("train", 10), ("valid", 20), ("test", 30))}
    (tmp_path / "test_submission.csv").write_text("id,breed\n0,a\n")
    collection = find_folder(tmp_path)
    for part, value in zip(PARTS, (10, 20, 30), strict=True):
        images = whole(collection, part)
        assert images.images[:, 0, 0, 0].tolist() == list(range(value, value + 10))
        assert images.labels.tolist() == [0, 1] * 5
    tables["test"].write_text("id,breed\n0,a\n1,c\n")
    with pytest.raises(UserError, match=r"test\.csv: c is no class of the training images"):
        find_folder(tmp_path)
    (tmp_path / "test_labels.csv").write_text("id,breed\n0,a\n1,b\n")
    with pytest.raises(UserError, match=r"several CSVs of labels for the test part, test\.csv and test_labels\.csv"):
        find_folder(tmp_path)


@pytest.mark.parametrize("name", ["latest_labels", "contest", "train_test_split"])
def test_a_csv_with_test_inside_a_word_labels_the_training_images(tmp_path: Path, name: str) -> None:
    write_kaggle(tmp_path, "train", 10).rename(tmp_path / f"{name}.csv")
    assert len(find_folder(tmp_path).train.labels) == 10


@pytest.mark.parametrize("table", ["id\n0\n1\n", "id,size\n0,32\n", "id,breed\n0,\n1,\n", "id;breed\n0;a\n", ""])
def test_a_csv_of_the_test_part_without_labels_is_left_alone(tmp_path: Path, table: str) -> None:
    write_kaggle(tmp_path, "train", 10)
    write_kaggle(tmp_path, "test", 30).write_text(table)
    assert find_folder(tmp_path).test is None


def test_one_folder_of_images_may_have_a_csv_for_each_part(tmp_path: Path) -> None:
    write_kaggle(tmp_path, "images", 10).unlink()
    (tmp_path / "train.csv").write_text("id,label\n0,a\n1,b\n2,a\n3,b\n")
    (tmp_path / "test.csv").write_text("id,label\n4,a\n5,b\n")
    assert whole(find_folder(tmp_path), "test").images[:, 0, 0, 0].tolist() == [14, 15]


def test_a_csv_tells_images_of_one_name_apart_by_their_folder(tmp_path: Path) -> None:
    rows, backslash = ["file,label"], "\\"
    for folder, value in (("right", 20), ("left", 10)):
        (tmp_path / folder).mkdir()
        for number in range(5):
            Image.new("L", (32, 32), value + number).save(tmp_path / folder / f"{number}.png")
            rows.append(f"{folder}{'/' if number else backslash}{number}{'.png' * (number % 2)},{folder}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    items = find_folder(tmp_path).train
    assert items.read(np.arange(10), 32).mean(axis=(1, 2, 3)).tolist() == [*range(20, 25), *range(10, 15)]
    (tmp_path / "labels.csv").write_text("file,label\n1.png,b\nleft/1,a\n")
    with pytest.raises(UserError, match=r"a label for 1\.png, but 2 images are called so"):
        find_folder(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\nleft/1,a\nup/1.png,b\n")
    with pytest.raises(UserError, match=r"a label for up/1\.png, but there is no such image"):
        find_folder(tmp_path)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("id,label\nx,cat\nmissing,dog\n", "has a label for missing, but there is no such image"),
        ("id\nx\n", "needs commas, a header and two columns"),
        ("", "needs commas, a header and two columns"),
        ("id;label\nx;cat\n", "needs commas, a header and two columns"),
        ("id,size,label\nx,3,cat\nx,3\n", "needs commas, a header and two columns"),
        ("x.png,cat\nx.png,cat\n", "has no header: its first line is about an image"),
        ("id,rust,scab\nx,0,1\n", "of its 3 columns none is called label"),
        ("id,label\nx,cat\nx,dog\n", "has two labels for x"),
        ("id,label\nx,\n", "has no label for x"),
        (None, "one CSV has to give their labels, but there is no"),
    ],
)
def test_a_csv_that_does_not_label_the_images_is_a_sentence(tmp_path: Path, table: str | None, reason: str) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    if table is not None:
        (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(UserError, match=reason):
        find_folder(tmp_path)


def test_a_row_that_is_there_twice_is_one_image(tmp_path: Path) -> None:
    for number in range(20):
        Image.new("L", (32, 32), number).save(tmp_path / f"{number}.png")
    rows = [f"{7 * number},{number % 20},{'ab'[number % 2]}" for number in range(40)]
    (tmp_path / "labels.csv").write_text("\n".join([",id,label", *rows]))
    items = find_folder(tmp_path).train
    assert items.read(np.arange(20), 32)[:, 0, 0, 0].tolist() == list(range(20))
    assert items.labels.tolist() == [0, 1] * 10


@pytest.mark.parametrize("names", [("Train", "Test"), ("training_set", "test_set"), ("Training", "testing images")])
def test_folders_of_parts_may_be_called_as_people_call_them(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write_folder(tmp_path / name, in_order(30))
    collection = find_folder(tmp_path)
    assert list(collection.class_names) == NAMES
    assert collection.test is not None


def test_folders_named_after_parts_are_no_classes_but_trains_may_be_one(tmp_path: Path) -> None:
    for name in ("train_images", "test_images"):
        write_folder(tmp_path / "flat", in_order(30), [name] * 3)
    with pytest.raises(UserError, match="one CSV has to give their labels, but there is no"):
        find_folder(tmp_path / "flat")
    write_folder(tmp_path / "lost" / "val", in_order(30))
    with pytest.raises(UserError, match="has the folder val, but none for training; call that one train"):
        find_folder(tmp_path / "lost")
    write_folder(tmp_path / "vehicles", in_order(30), ["bus", "car", "train"])
    assert list(find_folder(tmp_path / "vehicles").class_names) == ["bus", "car", "train"]


def test_cinic_10_is_a_folder_as_its_archive_unpacks(tmp_path: Path) -> None:
    names, parts = CLASS_NAMES["cifar10"], {"train": "train", "valid": "val", "test": "test"}
    for value, folder in enumerate(parts):
        for name in names:
            (tmp_path / "cinic" / folder / name).mkdir(parents=True)
            for file in (f"cifar10-{folder}-1.png", "n01234567_1.png"):
                Image.new("RGB", (32, 32), (value, 0, 0)).save(tmp_path / "cinic" / folder / name / file)
    data = load_training_data(
        "folder", train_images=None, data_dir=tmp_path / "cinic", store=tmp_path / "store", num_classes=10
    )
    assert data.class_names == names
    test = load_test_images("folder", data_dir=tmp_path / "cinic", store=tmp_path / "store").images
    for value, images in enumerate((data.train, data.val, test)):
        assert sorted(images.labels) == [label for label in range(10) for _ in range(2)]
        assert (images.images[:, 0] == value).all()


def test_a_csv_with_another_name_does_not_replace_class_folders(tmp_path: Path) -> None:
    write_folder(tmp_path, in_order(30))
    (tmp_path / "metadata.csv").write_text("file,sex\n0000.png,f\n0001.png,m\n")
    assert list(find_folder(tmp_path).class_names) == NAMES


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    write_folder(tmp_path, in_order(30))
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    assert len(find_folder(tmp_path).train.labels) == 30


def test_a_class_with_too_few_images_for_three_parts_is_named_before_a_search(tmp_path: Path) -> None:
    images = in_order(60)
    few = np.arange(43)
    write_folder(tmp_path / "mine", Images(images.images[few], images.labels[few]))
    with pytest.raises(UserError, match="the val part has no image of class 'owl'"):
        load("folder", tmp_path / "mine")


# Parquet


def test_shards_of_a_datasets_cache_are_found_and_read_in_order(tmp_path: Path) -> None:
    first, second = in_order(30), in_order(30, seed=1)
    folder = tmp_path / "me___flowers" / "default" / "0.0.0" / "0a1b"
    write_parquet(folder / "flowers-train-00000-of-00002.parquet", first)
    write_parquet(folder / "flowers-train-00001-of-00002.parquet", second)
    collection = find_own_parquet(tmp_path)
    images = collection.train.read(np.arange(60), 32)
    np.testing.assert_array_equal(images, np.concatenate([first.images, second.images]))
    write_parquet(folder / "flowers-test-00000-of-00001.parquet", first)
    assert len(whole(find_own_parquet(tmp_path), "test")) == 30
    (folder / "flowers-train-00000-of-00002.parquet").unlink()
    with pytest.raises(UserError, match="train shard 00000 is missing"):
        find_own_parquet(tmp_path)


def test_labels_may_be_text_or_bare_numbers(tmp_path: Path) -> None:
    images = in_order(30)
    write_parquet(tmp_path / "numbers" / "a.parquet", images, names=None)
    assert list(find_own_parquet(tmp_path / "numbers").class_names) == ["0", "1", "2"]
    (tmp_path / "text").mkdir()
    columns = {"picture": [cell["bytes"] for cell in cells(images)], "kind": [NAMES[i] for i in images.labels]}
    pq.write_table(pa.table(columns), tmp_path / "text" / "a.parquet")
    collection = find_own_parquet(tmp_path / "text")
    assert (list(collection.class_names), collection.train.labels.tolist()) == (NAMES, images.labels.tolist())


def test_folders_may_name_the_parts(tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        write_parquet(tmp_path / "default" / part / "0000.parquet", in_order(30))
    collection = find_own_parquet(tmp_path)
    assert [len(whole(collection, part)) for part in PARTS] == [30, 30, 30]


def test_files_of_two_exports_or_with_other_names_of_classes_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a" / "train-00000-of-00001.parquet", in_order(30))
    for number in range(2):
        write_parquet(tmp_path / "a" / f"train-0000{number}-of-00002.parquet", in_order(30))
    with pytest.raises(UserError, match="holds train files of several exports"):
        find_own_parquet(tmp_path / "a")
    write_parquet(tmp_path / "b" / "train.parquet", in_order(30))
    write_parquet(tmp_path / "b" / "test.parquet", in_order(30), ["dog", "cat", "owl"])
    with pytest.raises(UserError, match="name their classes otherwise; export them together"):
        find_own_parquet(tmp_path / "b")
    write_parquet(tmp_path / "c" / "train.parquet", in_order(30))
    write_parquet(tmp_path / "c" / "extra.parquet", in_order(30))
    with pytest.raises(UserError, match=r"extra\.parquet is named after no part, and other files are"):
        find_own_parquet(tmp_path / "c")


def test_categories_are_labels_and_an_empty_file_is_a_sentence(tmp_path: Path) -> None:
    images = in_order(30)
    kinds = pa.array([NAMES[i] for i in images.labels]).dictionary_encode()
    pq.write_table(pa.table({"image": cells(images), "label": kinds}), tmp_path / "a.parquet")
    assert list(find_own_parquet(tmp_path).class_names) == NAMES
    path = write_parquet(tmp_path / "empty" / "a.parquet", images)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(UserError, match=r"empty holds no image; point --data-dir"):
        find_own_parquet(tmp_path / "empty")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"image": [b"x"] * 3}, "one column has to hold the labels, but there is none"),
        ({"label": [0, 1, 2]}, "one column has to hold the images, but there is none"),
        ({"image": [b"x"] * 3, "a": [0, 1, 2], "b": [0, 1, 2]}, r"several may hold them \(a, b\)"),
        ({"image": [b"x"] * 3, "label": [0, None, 2]}, "a label is missing in the column label"),
        ({"image": [b"x"] * 3, "label": [0, -1, 2]}, r"a\.parquet: the label -1 is no number of a class"),
    ],
)
def test_columns_that_are_not_images_and_labels_are_a_sentence(
    tmp_path: Path, columns: dict[str, list[object]], reason: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=reason):
        find_own_parquet(tmp_path)


def test_a_row_is_counted_within_its_shard(tmp_path: Path) -> None:
    whole_shard = in_order(30)
    write_parquet(tmp_path / "train-00000-of-00002.parquet", whole_shard)
    columns = {"image": [*cells(whole_shard)[:7], *[{"bytes": b"x"}] * 23], "label": whole_shard.labels}
    pq.write_table(pa.table(columns), tmp_path / "train-00001-of-00002.parquet")
    with pytest.raises(UserError, match=r"train-00001-of-00002\.parquet: the image of row 7 cannot be used"):
        find_own_parquet(tmp_path).train.read(np.arange(60), 32)


def test_a_test_file_whose_labels_are_hidden_is_named(tmp_path: Path) -> None:
    images = in_order(30)
    write_parquet(tmp_path / "train-00000-of-00001.parquet", images)
    hidden = write_parquet(tmp_path / "test-00000-of-00001.parquet", Images(images.images, np.full(30, -1)))
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet: the label -1 is no number .* remove the file"):
        find_own_parquet(tmp_path)
    hidden.unlink()
    assert len(find_own_parquet(tmp_path).train.labels) == 30


def test_a_damaged_parquet_file_or_image_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"] * 60, "label": [0, 1, 2] * 20}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: the image of row \d+ cannot be used"):
        whole(find_own_parquet(tmp_path), "train")
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is damaged or no Parquet file"):
        find_own_parquet(tmp_path)


# Arrays


@pytest.mark.parametrize("channel", [(), (1,)])
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32])
def test_gray_arrays_and_classes_without_names_are_taken(
    tmp_path: Path, channel: tuple[int, ...], kind: type[np.generic]
) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    labels = (np.arange(60) % 3).reshape(60, *channel).astype(kind)
    np.savez(tmp_path / "a.npz", train_images=gray.reshape(60, 28, 28, *channel), train_labels=labels)
    collection = find_npz(tmp_path)
    assert list(collection.class_names) == ["0", "1", "2"]
    images = collection.train.read(np.arange(60), 28)
    np.testing.assert_array_equal(images, gray[:, None].repeat(3, axis=1))


def test_a_pickle_in_an_npz_is_never_loaded(tmp_path: Path) -> None:
    sprung = np.array([Tripwire(tmp_path / "sprung")], dtype=object)
    np.savez(tmp_path / "a.npz", train_images=np.zeros((3, 28, 28)), train_labels=sprung)
    with pytest.raises(UserError, match="the array train_labels cannot be read"):
        find_npz(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": np.zeros((3, 28, 28))}, "has no array train_images"),
        ({"train_images": np.zeros((3, 28, 28)), "train_labels": np.zeros((3, 14), int)}, "one whole number"),
        ({"train_images": np.zeros((3, 28, 28)), "train_labels": np.array([0.5, 1, 2])}, "one whole number"),
        ({"train_images": np.zeros((3, 28, 28)), "train_labels": np.array([-1, 1, 2])}, "a label is below 0"),
        ({"train_images": np.zeros((3, 28, 28)), "train_labels": np.array([np.nan, 1, 2])}, "one whole number"),
        (
            {"train_images": np.zeros((3, 28, 28)), "train_labels": np.array([1, 3, 2])},
            "no label is 0; number",
        ),
    ],
)
def test_arrays_that_are_not_images_and_labels_are_a_sentence(
    tmp_path: Path, arrays: dict[str, Any], reason: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=reason):
        find_npz(tmp_path)


def test_names_of_classes_may_be_bytes_but_not_twice_the_same(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"train_images": np.zeros((60, 28, 28), np.uint8), "train_labels": np.arange(60) % 2}
    np.savez(tmp_path / "a.npz", class_names=np.array([b"cat", b"dog"]), **arrays)
    assert list(find_npz(tmp_path).class_names) == ["cat", "dog"]
    np.savez(tmp_path / "a.npz", class_names=["cat", "cat"], **arrays)
    with pytest.raises(UserError, match="has two classes of one name"):
        find_npz(tmp_path)


def test_arrays_of_16_bits_have_one_scale_in_every_part(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {f"{part}_labels": np.arange(30) % 2 for part in PARTS}
    for part, value in zip(PARTS, (0x8000, 0x00FF, 0x0100), strict=True):
        arrays[f"{part}_images"] = np.full((30, 28, 28), value, np.uint16)
    np.savez(tmp_path / "a.npz", **arrays)
    assert [whole(find_npz(tmp_path), part).images.max() for part in PARTS] == [0x80, 0, 1]


def test_text_and_complex_numbers_are_no_images(tmp_path: Path) -> None:
    for values in (np.full((60, 28, 28), "a"), np.zeros((60, 28, 28), complex)):
        np.savez(tmp_path / "a.npz", train_images=values, train_labels=np.arange(60) % 2)
        with pytest.raises(UserError, match="train_images cannot be used: its values are no numbers"):
            whole(find_npz(tmp_path), "train")


def test_volumes_and_other_counts_are_a_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_images=np.zeros((60, 28, 28, 28)), train_labels=np.arange(60) % 3)
    with pytest.raises(UserError, match=r"train_images has the shape \(60, 28, 28, 28\); it has to be \(60, H, W\)"):
        whole(find_npz(tmp_path), "train")


# Digits


def test_the_digits_are_split_into_all_of_their_images(tmp_path: Path) -> None:
    data = load_training_data("digits", train_images=None, data_dir=None, store=tmp_path)
    test = load_test_images("digits", data_dir=None, store=tmp_path)
    assert [len(data.train), len(data.val), len(test.images)] == [1151, 287, 359]
    assert len(data.train) + len(data.val) == DATASETS["digits"].num_images
    assert data.class_names == DATASETS["digits"].class_names
    assert data.train.images.shape[1:] == (3, 32, 32)
    assert len(digits().train.labels) == 1797
