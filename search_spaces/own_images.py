"""Your own images: a template that works as it stands, on scikit-learn's 1,797 handwritten digits.

    cifar-tune run search_spaces/own_images.py

For your own, copy the file, and change what is marked. Then say where the images are:

    cifar-tune run my_images.py --data-dir my_images

Source: the Mini-ResNet with half of its channels; AdamW with a cosine, which needs no choice of where the rate falls.

Cost: about 27 epochs of three to six seconds on a CPU core, so a minute on two cores; `confirm` takes two more.
Expected: the baseline reaches about 98.3 % of the validation images and of the test images, the best trial 99.3 %.
"""

from cifar_tune import Augment, Recipe, Search, Trial

TASK = {
    # A published or built-in data set, or your own: "folder" (a folder for each class, or images with a CSV of labels),
    # "parquet" (an export of the Hugging Face hub), or "npz" (arrays train_images, train_labels and so on).
    "dataset": "digits",
    # "num_classes": 5,  # your own images need this
    "image_size": 32,  # pixels, 28 to 224: images of other sizes are resized, their centre square
}
FIXED = {
    "epochs": 5,  # of a whole training; the more images there are, the fewer epochs a good network needs
    "batch_size": 32,
    "augment": Augment(flip=False, crop_padding=2),  # a mirrored digit is none; most photographs may be mirrored
}

BASELINE = Recipe(
    **TASK,
    **FIXED,
    model={"name": "mini_resnet", "width": 0.5},
    optimizer={"name": "adamw", "lr": 0.001, "weight_decay": 0.01},
    schedule={"name": "cosine"},
)


def space(trial: Trial) -> Recipe:
    """What to vary: here how fast, how regularised and how wide."""
    return Recipe(
        **TASK,
        **FIXED,
        model={"name": "mini_resnet", "width": trial.suggest_categorical("model/width", [0.25, 0.5, 1.0])},
        optimizer={
            "name": "adamw",
            "lr": trial.suggest_float("optimizer/lr", 3e-4, 3e-2, log=True),
            "weight_decay": trial.suggest_float("optimizer/weight_decay", 1e-3, 0.3, log=True),
        },
        schedule={"name": "cosine"},
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
    )


SEARCH = Search(num_trials=12)
