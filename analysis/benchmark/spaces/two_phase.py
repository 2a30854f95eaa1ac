"""Two-phase transfer from CIFAR-100: the head first, on kept features, then the whole network at a rate of its own.

The number of epochs in the first phase is sampled too, so trials are judged at different epochs.
"""

from pathlib import Path

from cifar_tune import Recipe, Search, Trial

PRETRAINED = str(Path(__file__).parent.parent / "pretrained" / "weights.safetensors")

BASELINE = Recipe(
    dataset="cifar10",
    model={"name": "mini_resnet", "width": 0.5, "weights": PRETRAINED},
    finetune={"name": "two-phase", "head_epochs": 7, "lr": 1e-5},
    optimizer={"name": "adam", "lr": 0.001, "weight_decay": 1e-4},
    schedule={"name": "constant"},
    augment={"flip": True, "crop_padding": 2},
    epochs=14,
    batch_size=50,
)


def space(trial: Trial) -> Recipe:
    """Ten values."""
    return Recipe(
        dataset="cifar10",
        model={"name": "mini_resnet", "width": 0.5, "weights": PRETRAINED},
        finetune={
            "name": "two-phase",
            "head_epochs": trial.suggest_int("finetune/head_epochs", 1, 9),
            "lr": trial.suggest_float("finetune/lr", 1e-6, 3e-2, log=True),
            "batch_norm": trial.suggest_categorical("finetune/batch_norm", ["eval", "train"]),
        },
        optimizer={
            "name": "adam",
            "lr": trial.suggest_float("optimizer/lr", 1e-5, 1e-1, log=True),
            "weight_decay": trial.suggest_float("optimizer/weight_decay", 1e-6, 1e-2, log=True),
            "beta1": trial.suggest_float("optimizer/beta1", 0.5, 0.98),
        },
        schedule={"name": trial.suggest_categorical("schedule/name", ["constant", "cosine", "one-cycle"])},
        augment={"flip": trial.suggest_categorical("augment/flip", [True, False]), "crop_padding": 2},
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.4),
        epochs=14,
        batch_size=trial.suggest_categorical("batch_size", [25, 50, 100, 200]),
    )


SEARCH = Search(num_trials=100)
