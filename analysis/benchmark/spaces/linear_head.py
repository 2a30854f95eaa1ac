"""A linear head on the kept features of a network that was trained on CIFAR-100: few values, and all of them smooth.

An epoch is short, because the images go through the frozen network once for each configuration.
"""

from pathlib import Path

from cifar_tune import Recipe, Search, Trial

PRETRAINED = str(Path(__file__).parent.parent / "pretrained" / "weights.safetensors")

BASELINE = Recipe(
    dataset="cifar10",
    model={"name": "mini_resnet", "width": 0.5, "weights": PRETRAINED},
    finetune={"name": "frozen"},
    optimizer={"name": "adam", "lr": 0.001, "weight_decay": 1e-4},
    schedule={"name": "constant"},
    augment={"flip": False, "crop_padding": 0},
    epochs=25,
    batch_size=100,
)


def space(trial: Trial) -> Recipe:
    """Five values, one of which the optimizer decides."""
    optimizer = trial.suggest_categorical("optimizer/name", ["adam", "sgd"])
    low, high = (1e-4, 3.0) if optimizer == "sgd" else (1e-5, 1.0)
    return Recipe(
        dataset="cifar10",
        model={"name": "mini_resnet", "width": 0.5, "weights": PRETRAINED},
        finetune={"name": "frozen"},
        optimizer={
            "name": optimizer,
            "lr": trial.suggest_float(f"optimizer/{optimizer}/lr", low, high, log=True),
            "weight_decay": trial.suggest_float("optimizer/weight_decay", 1e-6, 1e-1, log=True),
        },
        schedule={"name": trial.suggest_categorical("schedule/name", ["constant", "cosine"])},
        augment={"flip": False, "crop_padding": 0},
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.5),
        epochs=25,
        batch_size=trial.suggest_int("batch_size", 20, 1000, log=True),
    )


SEARCH = Search(num_trials=100)
