"""A narrow Mini-ResNet under three optimizers and four schedules: the benchmark's conditional space.

The ranges are somewhat wider than those of search_spaces/mini_resnet.py. Batches are smaller, because an epoch here has
3,000 images of 16x16 pixels. A whole training takes about half a minute on one core.
"""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="cifar10",
    model={"name": "mini_resnet", "width": 0.5},
    optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "step", "every": 16, "gamma": 0.5},
    augment={"flip": True, "crop_padding": 2, "padding_mode": "zero"},
    epochs=20,
    batch_size=50,
)


def space(trial: Trial) -> Recipe:
    """Optimizer, schedule, learning rate and regularisation; optimizer and schedule decide which values there are."""
    optimizer = trial.suggest_categorical("optimizer/name", ["adam", "adamw", "sgd"])
    schedule = trial.suggest_categorical("schedule/name", ["step", "cosine", "one-cycle", "constant"])
    low, high = (3e-3, 1.0) if optimizer == "sgd" else (1e-4, 1e-1)
    return Recipe(
        dataset="cifar10",
        model={"name": "mini_resnet", "width": 0.5},
        optimizer={
            "name": optimizer,
            "lr": trial.suggest_float(f"optimizer/{optimizer}/lr", low, high, log=True),
            "weight_decay": _weight_decay(trial, optimizer),
        },
        schedule=_schedule(trial, schedule),
        augment={
            "flip": trial.suggest_categorical("augment/flip", [True, False]),
            "crop_padding": trial.suggest_int("augment/crop_padding", 0, 4),
            "padding_mode": "zero",
        },
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.3),
        epochs=20,
        batch_size=trial.suggest_categorical("batch_size", [25, 50, 100, 200]),
    )


def _weight_decay(trial: Trial, optimizer: str) -> float:
    if optimizer == "adamw":
        return trial.suggest_float("optimizer/adamw/weight_decay", 1e-3, 0.3, log=True)
    return trial.suggest_float(f"optimizer/{optimizer}/weight_decay", 0.0, 1e-3)


def _schedule(trial: Trial, name: str) -> dict[str, object]:
    if name == "step":
        return {"name": "step", "every": trial.suggest_int("schedule/step/every", 4, 20), "gamma": 0.5}
    return {"name": name}


SEARCH = Search(num_trials=100)
