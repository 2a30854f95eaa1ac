"""The space of all options of options.py at once, for as many images and epochs: a search of 40 trials."""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="cifar10",
    model={"name": "mini_resnet"},
    optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "step", "every": 20, "gamma": 0.5},
    augment={"flip": True, "crop_padding": 4, "padding_mode": "zero"},
    epochs=10,
    batch_size=100,
    train_images=9_000,
)


def space(trial: Trial) -> Recipe:
    """Every option on or off, and the learning rates that go with the optimizers."""
    optimizer = trial.suggest_categorical("optimizer/name", ["adam", "sgd", "muon"])
    low, high = {"adam": (3e-4, 1e-2), "sgd": (0.01, 0.3), "muon": (0.005, 0.1)}[optimizer]
    settings: dict[str, str | int | float | bool | None] = {
        "optimizer/name": optimizer,
        "optimizer/lr": trial.suggest_float(f"optimizer/{optimizer}/lr", low, high, log=True),
        "schedule/name": trial.suggest_categorical("schedule/name", ["step", "cosine", "linear"]),
        "model/whitening": trial.suggest_categorical("model/whitening", [False, True]),
        "averaging/name": trial.suggest_categorical("averaging/name", ["none", "ema"]),
        "mixing/name": trial.suggest_categorical("mixing/name", ["none", "mixup", "cutmix"]),
        "augment/trivial_augment": trial.suggest_categorical("augment/trivial_augment", [False, True]),
        "augment/cutout": trial.suggest_categorical("augment/cutout", [0, 16]),
        "augment/erasing": trial.suggest_categorical("augment/erasing", [0.0, 0.25]),
        "label_smoothing": trial.suggest_categorical("label_smoothing", [0.0, 0.1]),
    }
    if optimizer == "sgd":
        settings |= {"optimizer/nesterov": trial.suggest_categorical("optimizer/nesterov", [False, True])}
    return BASELINE.replace(settings)


SEARCH = Search(num_trials=40)
