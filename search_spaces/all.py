"""All five published projects as one conditional space, on CIFAR-10 at 32 px.

Source: the projects of the other spaces here. Their five recipes, changed to CIFAR-10 and 32 px where they were made
for something else, are the baselines and run first; gains are counted from the best of them. Then every architecture is
combined with every schedule, optimizer, fine-tuning policy and augmentation that suits it.

    cifar-tune run search_spaces/all.py
    cifar-tune run search_spaces/all.py --set model/weights=none     # without ImageNet's weights

Cost: 150 trials of at most 8 to 50 epochs, on two CPU cores from seconds (a head on cached features) to hours each; use
a GPU.
Expected: 90 to 91 % is published for ResNet9; accuracy against seconds shows which recipe is best at which cost.
"""

from typing import Any

from cifar_tune import Augment, Recipe, Search, Trial

NO_AUGMENT = {"flip": False, "crop_padding": 0}
BASELINES = [
    Recipe(
        dataset="cifar10",
        model={"name": "resnet50", "weights": "imagenet", "head": "linear"},
        optimizer={"name": "adam", "lr": 0.001},
        schedule={"name": "constant"},
        finetune={"name": "frozen"},
        augment=NO_AUGMENT,
        scaling="imagenet",
        epochs=10,
        batch_size=128,
    ),
    Recipe(
        dataset="cifar10",
        model={"name": "resnet50", "weights": "imagenet", "head": "128-64"},
        optimizer={"name": "adam", "lr": 0.001},
        schedule={"name": "constant"},
        finetune={"name": "two-phase", "head_epochs": 10, "lr": 1e-5},
        augment=NO_AUGMENT,
        scaling="symmetric",
        epochs=20,
        batch_size=128,
    ),
    Recipe(
        dataset="cifar10",
        model={"name": "resnet9", "dropout": 0.2},
        optimizer={"name": "adam", "lr": 0.01, "weight_decay": 1e-4},
        schedule={"name": "one-cycle", "shape": "linear-exponential"},
        grad_clip={"name": "value", "limit": 0.1},
        augment={"flip": True, "crop_padding": 4, "padding_mode": "reflect"},
        scaling="dataset",
        epochs=8,
        batch_size=400,
    ),
    Recipe(
        dataset="cifar10",
        model={"name": "resnet50", "weights": "imagenet", "head": "512", "dropout": 0.5},
        optimizer={"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
        schedule={"name": "plateau", "reduction": 0.1, "patience": 3},
        finetune={"name": "full"},
        early_stopping={"name": "patience", "patience": 7},
        augment={
            "flip": True,
            "crop_padding": 4,
            "padding_mode": "zero",
            "brightness": 0.2,
            "contrast": 0.2,
            "saturation": 0.2,
            "hue": 0.1,
            "rotation": 15.0,
            "grayscale": 0.1,
        },
        scaling="imagenet",
        epochs=50,
        batch_size=128,
    ),
    Recipe(
        dataset="cifar10",
        model={"name": "mini_resnet"},
        optimizer={"name": "adam", "lr": 0.001},
        schedule={"name": "step", "every": 20, "gamma": 0.5},
        augment={"flip": True, "crop_padding": 4, "padding_mode": "zero"},
        scaling="dataset",
        epochs=25,
        batch_size=100,
    ),
]


def space(trial: Trial) -> Recipe:
    """The model first; options that only one variant has are sampled only with it."""
    model = trial.suggest_categorical("model/name", ["resnet9", "mini_resnet", "resnet50"])
    epochs = trial.suggest_categorical("epochs", [8, 10, 20, 25, 50])
    augment = _augment(trial)
    return Recipe(
        dataset="cifar10",
        model=_model(trial, model),
        optimizer=_optimizer(trial),
        schedule=_schedule(trial),
        finetune=_finetune(trial, epochs, augment) if model == "resnet50" else {"name": "scratch"},
        grad_clip=_grad_clip(trial),
        early_stopping=_early_stopping(trial),
        augment=augment,
        scaling=trial.suggest_categorical("scaling", ["unit", "symmetric", "imagenet", "dataset"]),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
        epochs=epochs,
        batch_size=trial.suggest_categorical("batch_size", [100, 128, 256, 400]),
    )


def _model(trial: Trial, name: str) -> dict[str, Any]:
    if name == "mini_resnet":
        return {"name": name}
    if name == "resnet9":
        return {"name": name, "dropout": trial.suggest_float("model/resnet9/dropout", 0.0, 0.5)}
    return {
        "name": name,
        "weights": "imagenet",
        "head": trial.suggest_categorical("model/head", ["linear", "128-64", "512"]),
        "dropout": trial.suggest_float("model/resnet50/dropout", 0.0, 0.7),
    }


def _finetune(trial: Trial, epochs: int, augment: Augment) -> dict[str, Any]:
    """In two phases the head gets half of the epochs. A frozen backbone sees 4 fixed views, or new ones every epoch."""
    name = trial.suggest_categorical("finetune/name", ["frozen", "two-phase", "full"])
    if name == "full":
        return {"name": name}
    views = None if augment.changes_nothing else trial.suggest_categorical("finetune/views", [None, 4])
    if name == "frozen":
        return {"name": name, "views": views}
    return {
        "name": name,
        "views": views,
        "head_epochs": max(1, epochs // 2),
        "lr": trial.suggest_float("finetune/lr", 1e-6, 1e-3, log=True),
        "batch_norm": trial.suggest_categorical("finetune/batch_norm", ["eval", "train"]),
    }


def _optimizer(trial: Trial) -> dict[str, Any]:
    """AdamW's weight decay is decoupled from the gradient and needs larger values."""
    name = trial.suggest_categorical("optimizer/name", ["adam", "adamw", "sgd"])
    if name == "sgd":
        return {
            "name": name,
            "lr": trial.suggest_float("optimizer/sgd/lr", 1e-3, 1.0, log=True),
            "momentum": trial.suggest_float("optimizer/momentum", 0.8, 0.98),
            "weight_decay": trial.suggest_float("optimizer/sgd/weight_decay", 0.0, 1e-3),
        }
    if name == "adam":
        weight_decay = trial.suggest_float("optimizer/adam/weight_decay", 0.0, 1e-3)
    else:
        weight_decay = trial.suggest_float("optimizer/adamw/weight_decay", 1e-3, 0.3, log=True)
    lr = trial.suggest_float(f"optimizer/{name}/lr", 1e-4, 3e-2, log=True)
    return {"name": name, "lr": lr, "weight_decay": weight_decay}


def _schedule(trial: Trial) -> dict[str, Any]:
    name = trial.suggest_categorical("schedule/name", ["one-cycle", "step", "plateau", "constant", "cosine"])
    if name == "one-cycle":
        return {
            "name": name,
            "shape": trial.suggest_categorical("schedule/shape", ["linear-exponential", "torch"]),
        }
    if name == "step":
        return {"name": name, "every": trial.suggest_int("schedule/every", 2, 20), "gamma": 0.5}
    if name == "plateau":
        return {"name": name, "reduction": 0.1, "patience": trial.suggest_int("schedule/patience", 1, 5)}
    return {"name": name}


def _grad_clip(trial: Trial) -> dict[str, Any]:
    name = trial.suggest_categorical("grad_clip/name", ["none", "value", "norm"])
    if name == "none":
        return {"name": name}
    low, high = (0.01, 1.0) if name == "value" else (0.1, 10.0)
    return {"name": name, "limit": trial.suggest_float(f"grad_clip/{name}/limit", low, high, log=True)}


def _early_stopping(trial: Trial) -> dict[str, Any]:
    name = trial.suggest_categorical("early_stopping/name", ["none", "patience"])
    if name == "none":
        return {"name": name}
    return {"name": name, "patience": trial.suggest_int("early_stopping/patience", 3, 10)}


def _augment(trial: Trial) -> Augment:
    """The projects' augmentations, each in a few strengths or off."""
    return Augment(
        flip=trial.suggest_categorical("augment/flip", [False, True]),
        crop_padding=trial.suggest_int("augment/crop_padding", 0, 4, step=2),
        padding_mode=trial.suggest_categorical("augment/padding_mode", ["reflect", "zero"]),
        brightness=trial.suggest_categorical("augment/brightness", [0.0, 0.2, 0.4]),
        contrast=trial.suggest_categorical("augment/contrast", [0.0, 0.2, 0.4]),
        saturation=trial.suggest_categorical("augment/saturation", [0.0, 0.2, 0.4]),
        hue=trial.suggest_categorical("augment/hue", [0.0, 0.1]),
        rotation=trial.suggest_categorical("augment/rotation", [0.0, 15.0]),
        grayscale=trial.suggest_categorical("augment/grayscale", [0.0, 0.1]),
    )


SEARCH = Search(num_trials=150)
