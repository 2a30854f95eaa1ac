"""`cifar-tune init`: looks at a folder of images, and writes a search space for it."""

from pathlib import Path
from statistics import median
from string import Template

import numpy as np

from cifar_tune.data.collection import Collection
from cifar_tune.data.datasets import find_collection
from cifar_tune.data.images import IMAGE_SIZE, DatasetName
from cifar_tune.data.pixels import shorter_side
from cifar_tune.errors import UserError
from cifar_tune.provenance import as_typed

SIZES = (28, 32, 48, 64)  # of which the largest that the images have is taken; larger ones take long on a CPU
NUM_LOOKED_AT = 200  # images, for their size
NUM_SHOWN = 200_000  # training images in all epochs together, about; so many that a good network is not far off
EPOCHS = (5, 30)
BATCH_SIZES = (32, 64, 128)
IMBALANCE = 3  # times as many images in the largest class as in the smallest, from which classes should count alike
STEPS_PER_EPOCH = 40  # at least, of the largest batch that has them

TEMPLATE = Template('''"""$docstring
"""

from cifar_tune import Augment, Recipe, Search, Trial

TASK = {
    # A published or built-in data set, or your own: "folder" (a folder for each class, or images with a CSV of labels),
    # "parquet" (an export of the Hugging Face hub), or "npz" (arrays train_images, train_labels and so on).
    $task
    "image_size": $image_size,  # pixels, 28 to 224: images of other sizes are resized, their centre square
}
FIXED = {
    "epochs": $epochs,  # of a whole training; the more images there are, the fewer epochs a good network needs
    "batch_size": $batch_size,
    $augment
}

BASELINE = Recipe(
    **TASK,
    **FIXED,
    model={"name": "mini_resnet", "width": $width},
    optimizer={"name": "adamw", "lr": 0.001, "weight_decay": 0.01},
    schedule={"name": "cosine"},
)


def space(trial: Trial) -> Recipe:
    """What to vary: here how fast, how regularised and how wide."""
    return Recipe(
        **TASK,
        **FIXED,
        model={"name": "mini_resnet", "width": trial.suggest_categorical("model/width", [$widths])},
        optimizer={
            "name": "adamw",
            "lr": trial.suggest_float("optimizer/lr", 3e-4, 3e-2, log=True),
            "weight_decay": trial.suggest_float("optimizer/weight_decay", 1e-3, 0.3, log=True),
        },
        schedule={"name": "cosine"},
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
    )


SEARCH = Search($search)
''')
AUGMENT = '"augment": Augment(),  # mirrored and shifted; say Augment(flip=False) where a mirrored image is another'


def write_space(folder: Path, output: Path) -> None:
    """Write a search space for the images of the folder, and print what to do with it."""
    if output.exists():
        raise UserError(f"{output} is there already; name another file with --output.")
    name, collection = look_at(folder)
    num_images = collection.num_images
    epochs, batch_size = budget(num_images)
    command = as_typed("run", str(output), "--data-dir", str(folder))
    text = TEMPLATE.substitute(
        docstring=_describe(folder, collection, command),
        task=f'"dataset": "{name}",\n    "num_classes": {len(collection.class_names)},',
        image_size=_image_size(collection),
        epochs=epochs,
        batch_size=batch_size,
        augment=AUGMENT,
        width=1.0,
        widths="0.5, 1.0, 2.0",
        search=f"num_trials=40{_score(collection)}",
    )
    output.write_text(text, encoding="utf-8")
    print(f"{output}: {name}, {num_images:,} images of {len(collection.class_names)} classes, {epochs} epochs")
    print(f"See what it takes: {command} --plan")
    print(f"Search:            {command}")


def look_at(folder: Path) -> tuple[DatasetName, Collection]:
    """The layout of the folder's files, and what they hold; a UserError where it is none of the layouts."""
    name: DatasetName = "folder"
    if folder.is_dir():
        name = "npz" if any(folder.glob("*.npz")) else "parquet" if any(folder.rglob("*.parquet")) else name
    return name, find_collection(name, folder)


def budget(num_images: int) -> tuple[int, int]:
    """The (epochs, batch size) of a first search."""
    low, high = EPOCHS
    sizes = [size for size in BATCH_SIZES if num_images >= STEPS_PER_EPOCH * size]
    return min(high, max(low, round(NUM_SHOWN / num_images))), sizes[-1] if sizes else BATCH_SIZES[0]


def _score(collection: Collection) -> str:
    """What the search is for, where it is not the accuracy, which a few large classes would decide."""
    counts = np.bincount(collection.train.labels)
    return ', score="balanced_accuracy"' if counts.max() >= IMBALANCE * counts.min() else ""


def _image_size(collection: Collection) -> int:
    """The largest of SIZES that half of the images have, or the smallest; of images in few files the usual one."""
    files = collection.train.files
    if not collection.train.is_one_each:
        return IMAGE_SIZE
    side = median(shorter_side(path) for path in files[:: len(files) // NUM_LOOKED_AT + 1])
    return max((size for size in SIZES if size <= side), default=SIZES[0])


def _describe(folder: Path, collection: Collection, command: str) -> str:
    """The inside of the file's docstring; folders and classes may be called anything."""
    names = ", ".join(collection.class_names[:5]) + (" and so on" if len(collection.class_names) > 5 else "")
    text = (
        f"Images in {folder.name}: {collection.num_images:,} for training and validation, "
        f"{len(collection.class_names)} classes.\n\n    {command}\n\nThe classes are {names}.\n\n"
        f"Written by cifar-tune init. Epochs, sizes and ranges are a beginning; the file is yours to change."
    )
    return text.replace("\\", "\\\\").replace('"', '\\"')
