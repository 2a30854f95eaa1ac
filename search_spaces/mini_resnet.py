"""Mini-ResNet with step decay on CIFAR-10.

Source: the Mini-ResNet repository, "ResNet for CIFAR-10 Classification": batches of 100, 25 epochs, a learning rate of
0.001 halved every 20 epochs, random flips and crops. It leaves open, and we chose: Adam.

    cifar-tune run search_spaces/mini_resnet.py

Cost: 40 trials of at most 25 epochs; a whole trial takes about half an hour on one CPU core.
Expected: no accuracy is published for these values; a similar network reached 88.2 % after 80 epochs.
"""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="cifar10",
    model={"name": "mini_resnet"},
    optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "step", "every": 20, "gamma": 0.5},
    augment={"flip": True, "crop_padding": 4, "padding_mode": "zero"},
    scaling="dataset",
    epochs=25,
    batch_size=100,
)


def space(trial: Trial) -> Recipe:
    """Learning rate, schedule, optimizer and regularisation around the repository's values."""
    optimizer = trial.suggest_categorical("optimizer/name", ["adam", "adamw", "sgd"])
    schedule = trial.suggest_categorical("schedule/name", ["step", "cosine", "one-cycle", "constant"])
    low, high = (0.01, 1.0) if optimizer == "sgd" else (3e-4, 3e-2)
    return Recipe(
        dataset="cifar10",
        model={"name": "mini_resnet"},
        optimizer={
            "name": optimizer,
            "lr": trial.suggest_float(f"optimizer/{optimizer}/lr", low, high, log=True),
            "weight_decay": _weight_decay(trial, optimizer),
        },
        schedule=_schedule(trial, schedule),
        augment={
            "flip": True,
            "crop_padding": trial.suggest_int("augment/crop_padding", 0, 6),
            "padding_mode": "zero",
        },
        scaling="dataset",
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
        epochs=25,
        batch_size=trial.suggest_categorical("batch_size", [50, 100, 200, 400]),
    )


def _weight_decay(trial: Trial, optimizer: str) -> float:
    """AdamW's weight decay is decoupled from the gradient and needs larger values; the baseline has none."""
    if optimizer == "adamw":
        return trial.suggest_float("optimizer/adamw/weight_decay", 1e-3, 0.3, log=True)
    return trial.suggest_float(f"optimizer/{optimizer}/weight_decay", 0.0, 1e-3)


def _schedule(trial: Trial, name: str) -> dict[str, object]:
    if name == "step":
        return {"name": "step", "every": trial.suggest_int("schedule/step/every", 5, 25), "gamma": 0.5}
    return {"name": name}


SEARCH = Search(num_trials=40)
