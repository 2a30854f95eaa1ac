"""A small head on an ImageNet ResNet-50, then the whole network at a low learning rate, on CIFAR-10.

Source: the two-phase project, "CIFAR-10 Image Classification: A Transfer Learning Approach with ResNet50": images stay
at 32 px, global average pooling, hidden layers of 128 and 64; 10 epochs with the base frozen, then 10 epochs of
everything at a low learning rate. It leaves open, and we chose: Adam at 0.001, then at 0.00001, batches of 128, pixels
in [-1, 1]. Its ideas for improvement (flips and rotation, a falling learning rate, more epochs) are ranges here.

    cifar-tune run search_spaces/resnet50_two_phase.py

Cost: 28 trials of at most 20 to 40 epochs; an epoch of the second phase takes minutes on two CPU cores, seconds on a
GPU.
Expected: about 69.5 % is published for the two phases at 32 px.
"""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="cifar10",
    model={"name": "resnet50", "weights": "imagenet", "head": "128-64", "image_size": 32},
    optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "constant"},
    finetune={"name": "two-phase", "head_epochs": 10, "lr": 1e-5, "batch_norm": "eval"},
    augment={"flip": False, "crop_padding": 0},
    scaling="symmetric",
    epochs=20,
    batch_size=128,
)


def space(trial: Trial) -> Recipe:
    """Ranges around the project's values, with its ideas for improvement; the head keeps half of the epochs."""
    return BASELINE.replace(
        {
            "epochs": trial.suggest_int("epochs", 20, 40, step=10),
            "model/head": trial.suggest_categorical("model/head", ["linear", "128-64", "512"]),
            "optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True),
            "schedule/name": trial.suggest_categorical("schedule/name", ["constant", "cosine", "one-cycle"]),
            "finetune/lr": trial.suggest_float("finetune/lr", 1e-6, 1e-3, log=True),
            "finetune/batch_norm": trial.suggest_categorical("finetune/batch_norm", ["eval", "train"]),
            "augment/flip": trial.suggest_categorical("augment/flip", [False, True]),
            "augment/rotation": trial.suggest_categorical("augment/rotation", [0.0, 10.0]),
            "scaling": trial.suggest_categorical("scaling", ["unit", "symmetric", "imagenet", "dataset"]),
        }
    )


SEARCH = Search(num_trials=28)
