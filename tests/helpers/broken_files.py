"""Damaged and hostile files: every kind of file that the program reads, a valid one of each, and mutations of it."""

import gc
import pickle
import random
import shutil
import sqlite3
import struct
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat

from cifar_tune.data.archive import Archive, find_batches
from cifar_tune.data.cache import read_cache, write_cache
from cifar_tune.data.datasets import find_source
from cifar_tune.data.download import PublishedFile
from cifar_tune.data.images import CLASS_NAMES, IMAGE_SIZE, Images, Labelled, TrainingData
from cifar_tune.data.parquet import find_parquet
from cifar_tune.data.pixels import read_image, why_unreadable
from cifar_tune.data.svhn import find_mat
from cifar_tune.errors import UserError
from cifar_tune.guard import explain
from cifar_tune.search.identity import open_record
from cifar_tune.search.space import load_space
from cifar_tune.store import STATE, WEIGHTS, Store, open_store
from cifar_tune.training.checkpoint import resume, save_state, save_weights
from cifar_tune.training.features import FeatureCache
from cifar_tune.training.inference import load_classifier
from cifar_tune.training.loop import Training
from cifar_tune.training.weights import fitting, for_network, read_weights
from cifar_tune.trials.cache import FILE, read_optuna_trials
from cifar_tune.trials.reading import read_record
from cifar_tune.trials.storage import open_storage
from helpers.command_line import GOOD
from helpers.cuts import placed
from helpers.image_files import md5, one_shard, random_images, write_shard
from helpers.records import driver_of, train, written
from helpers.runs import BASE

RECIPE = BASE.replace({"model/width": 0.25, "epochs": 2})
IMAGE_KINDS = (
    "png",
    "jpg",
    "gif",
    "webp",
    "tiff",
    "bmp",
    "ico",
    "ppm",
    "tga",
    "jp2",
    "avif",
    "dds",
    "pcx",
    "sgi",
    "icns",
)
INTEGERS = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]


@dataclass(frozen=True)
class Kind:
    """A kind of file: how a valid one is written into a folder, and how it is read, which may raise a UserError."""

    write: Callable[[Path], Path]
    read: Callable[[Path], object]


def mutated(content: bytes, seed: int) -> bytes:
    """The content with one to four changes: bits, bytes, numbers, cuts, repetitions, and pieces moved."""
    rng, changed = random.Random(seed), bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        size = max(1, len(changed))
        # Half of the changes are near an end, where headers and tables of contents are.
        at = rng.choice(
            [
                rng.randrange(size),
                min(size - 1, int(rng.expovariate(1 / 64))),
                max(0, size - 1 - int(rng.expovariate(1 / 64))),
            ]
        )
        length = int(rng.expovariate(1 / 16)) + 1
        match rng.randrange(7):
            case 0:
                changed[at : at + 1] = bytes([changed[at] ^ (1 << rng.randrange(8))] if changed else [0])
            case 1:
                changed[at : at + length] = rng.randbytes(length)
            case 2:
                width = rng.choice([1, 2, 4, 8])
                number = rng.choice(INTEGERS) % 2 ** (8 * width)
                changed[at : at + width] = number.to_bytes(width, rng.choice(["big", "little"]))
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                other = rng.randrange(size)
                changed[at : at + length] = changed[other : other + length]
            case _:
                del changed[at:]
    return bytes(changed)


def _parquet(folder: Path) -> Path:
    return write_shard(one_shard(folder), random_images(20))


def _read_parquet(path: Path) -> object:
    source = find_parquet("cifar10", "train", path.parent)
    return source.decode() if source else None


def _batch(folder: Path) -> Path:
    images = random_images(20)
    batch = {"data": images.images.reshape(len(images), -1), "labels": images.labels.tolist()}
    path = folder / "tiny-batches" / "batch"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(batch))
    return path


def _packed(folder: Path) -> Path:
    path = folder / "tiny.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(_batch(folder).parent, "tiny-batches")
    shutil.rmtree(folder / "tiny-batches")
    return path


def _read_archive(path: Path) -> object:
    """Read the archive as if its present content were the published one."""
    published = md5(path.read_bytes())
    is_packed = path.suffix == ".gz"
    batches = (("batch", _md5_inside(path) if is_packed else published),)
    archive = Archive(
        "cifar10", "http://127.0.0.1:9/", "tiny.tar.gz", published, "tiny-batches", batches, batches, "labels"
    )
    return find_batches(archive, "train", path.parent, path.parent / "store").decode()


def _idx(folder: Path) -> Path:
    """Unpacked images of MNIST, which have no checksum, beside their labels."""
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 10) + bytes(range(10)))
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(struct.pack(">4I", 0x803, 10, 28, 28) + bytes(10 * 28 * 28))
    return path


def _read_idx(path: Path) -> object:
    return find_source("mnist", "train", path.parent, path.parent / "store").decode()


def _mat(folder: Path) -> Path:
    images = random_images(20)
    savemat(folder / "tiny.mat", {"X": images.images.transpose(2, 3, 1, 0), "y": images.labels[:, None] + 1})
    return folder / "tiny.mat"


def _read_mat(path: Path) -> object:
    """Read the file as if its present content were the published one."""
    file = PublishedFile("svhn", "http://127.0.0.1:9/tiny.mat", path.name, md5(path.read_bytes()))
    return find_mat(file, path.parent, path.parent / "store").decode()


def _md5_inside(packed: Path) -> str:
    try:
        with tarfile.open(packed) as tar:
            member = tar.extractfile("tiny-batches/batch")
            return md5(member.read() if member else b"")
    except Exception:
        return ""


def _finished_trials(folder: Path) -> Path:
    """The cache file of a search of 600 finished trials."""
    store = open_store(folder)
    study = optuna.create_study(storage=open_storage(store), study_name="tiny")
    study.set_user_attr("id", "tiny")
    range_of_x: dict[str, BaseDistribution] = {"x": optuna.distributions.FloatDistribution(0, 1)}
    study.add_trials([optuna.create_trial(value=0.5, params={"x": 0.5}, distributions=range_of_x) for _ in range(600)])
    store.search("tiny").mkdir(parents=True)
    _read_finished_trials(store.search("tiny") / FILE)
    return store.search("tiny") / FILE


def _read_finished_trials(path: Path) -> object:
    store = open_store(path.parents[2])
    study = optuna.load_study(storage=(storage := open_storage(store)), study_name="tiny")
    return read_optuna_trials(store, study, storage)


def _record(folder: Path) -> Path:
    """The database of a search of two trials, without the journal of the process that makes it."""
    made, store = open_store(folder / "made"), open_store(folder / "store")
    driver = driver_of(open_record(made, "tiny", written(folder, GOOD), 0))
    for _ in range(2):
        train(driver, [0.5])
    with closing(sqlite3.connect(made.optuna_path)) as source, closing(sqlite3.connect(store.optuna_path)) as copy:
        source.backup(copy)
    return store.optuna_path


def _read_record(path: Path) -> object:
    store = Store(path.parent)
    gc.collect()  # closes the database that was read before
    for journal in ("-wal", "-shm", "-journal"):
        Path(f"{path}{journal}").unlink(missing_ok=True)
    try:
        return read_record(store)
    except UserError:
        raise
    except Exception as error:  # as the guard of the commands has it
        sentence = explain(error, store.root)
        if sentence is None:
            raise
        raise UserError(f"{sentence}.") from error


def _network_file(ending: str, save: Callable[[dict[str, torch.Tensor], Path], object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / f"network.{ending}"
        save(RECIPE.model.build(10).state_dict(), path)
        return path

    return write


def _read_network(path: Path) -> object:
    weights, network = read_weights(path), RECIPE.model.build(10)
    return fitting(network, for_network(weights, network)[0], "cifar10")


def _tiny() -> Training:
    images = random_images(8)
    part = Images(images.images, images.labels)
    return Training(RECIPE, placed(TrainingData("shapes", "", part, part, CLASS_NAMES["shapes"])))


def _state(folder: Path) -> Path:
    training = _tiny()
    next(training.fit())
    save_state(folder, training.state_dict())
    return folder / STATE


def _read_state(path: Path) -> object:
    training = _tiny()
    resume(training, path.parent)
    return [metrics.val_loss for metrics in training.history]


def _classifier(folder: Path) -> Path:
    preprocessing = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    save_weights(
        folder, RECIPE.model.build(10), {"recipe": RECIPE.model_dump(mode="json"), "preprocessing": preprocessing}
    )
    return folder / WEIGHTS


def _read_classifier(path: Path) -> object:
    classifier, _ = load_classifier(path)
    with torch.inference_mode():
        return classifier(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def _image(kind: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / f"image.{kind}"
        gradient = np.add.outer(np.arange(64), np.arange(48))[..., None] * np.array([1, 2, 3])
        Image.fromarray(gradient.astype(np.uint8)).save(path)
        return path

    return write


def _read_image(path: Path) -> object:
    """As `predict` reads it, which skips an image that raises anything."""
    try:
        return read_image(path)
    except Exception as error:
        raise UserError(f"{why_unreadable(error, path)}.") from error


def _images_cache(folder: Path) -> Path:
    path, images = folder / "images.npy", random_images(20)
    write_cache(path, Labelled(images.labels, [images.images]), lambda labels: np.arange(len(labels)), IMAGE_SIZE)
    return path


def _read_images_cache(path: Path) -> object:
    return read_cache(path, IMAGE_SIZE)


def _features(folder: Path) -> Path:
    FeatureCache(folder).get({}, torch.device("cpu"), lambda: torch.ones(1, 4, 3))
    (path,) = folder.glob("*.safetensors")
    return path


def _read_features(path: Path) -> object:
    features = FeatureCache(path.parent).get({}, torch.device("cpu"), lambda: torch.ones(1, 4, 3))
    assert torch.equal(features, torch.ones(1, 4, 3))
    return features


def _space(folder: Path) -> Path:
    path = folder / "space.py"
    path.write_text(GOOD, encoding="utf-8")
    return path


def _legacy(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


KINDS = {
    "packed archive": Kind(_packed, _read_archive),
    "batch": Kind(_batch, _read_archive),
    "idx": Kind(_idx, _read_idx),
    "mat": Kind(_mat, _read_mat),
    "finished trials": Kind(_finished_trials, _read_finished_trials),
    "database": Kind(_record, _read_record),
    "parquet": Kind(_parquet, _read_parquet),
    "safetensors": Kind(_network_file("safetensors", save_file), _read_network),
    "state_dict": Kind(_network_file("pt", torch.save), _read_network),
    "checkpoint": Kind(
        _network_file("ckpt", lambda state, path: torch.save({"state_dict": state}, path)), _read_network
    ),
    "old state_dict": Kind(_network_file("pth", _legacy), _read_network),
    "state": Kind(_state, _read_state),
    "classifier": Kind(_classifier, _read_classifier),
    "images cache": Kind(_images_cache, _read_images_cache),
    "features": Kind(_features, _read_features),
    "space": Kind(_space, load_space),
    **{f"image {kind}": Kind(_image(kind), _read_image) for kind in IMAGE_KINDS},
}


def read_mutations(kind: str, folder: Path, num_mutations: int) -> None:
    """Read mutations of a file; raises what is neither a result nor a UserError of one sentence."""
    path = KINDS[kind].write(folder)
    content = path.read_bytes()
    assert KINDS[kind].read(path) is not None
    for seed in range(num_mutations):
        path.write_bytes(mutated(content, seed))
        sentence = _refusal(kind, path)
        assert sentence is None or ("\n" not in sentence and sentence.endswith(".")), (seed, sentence)


def _refusal(kind: str, path: Path) -> str | None:
    """The sentence by which a file is refused; None if it is read."""
    try:
        KINDS[kind].read(path)
    except UserError as error:
        return str(error)
    return None
