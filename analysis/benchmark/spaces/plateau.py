"""A narrow ResNet9 with SGD at a rate that stays until the validation loss stops falling, or for good.

Curves rise fast and then stay, so early scores tell much; batches are small, because an epoch here has 1,500 images of
16x16 pixels.
"""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="cifar10",
    model={"name": "resnet9", "width": 0.125, "dropout": 0.2},
    optimizer={"name": "sgd", "lr": 0.1, "weight_decay": 5e-4},
    schedule={"name": "plateau"},
    augment={"flip": True, "crop_padding": 2, "padding_mode": "zero"},
    epochs=20,
    batch_size=50,
)


def space(trial: Trial) -> Recipe:
    """Nine or eleven values: a plateau has two of its own."""
    schedule = trial.suggest_categorical("schedule/name", ["plateau", "constant"])
    return Recipe(
        dataset="cifar10",
        model={"name": "resnet9", "width": 0.125, "dropout": trial.suggest_float("model/dropout", 0.0, 0.6)},
        optimizer={
            "name": "sgd",
            "lr": trial.suggest_float("optimizer/lr", 1e-3, 1.0, log=True),
            "momentum": trial.suggest_float("optimizer/momentum", 0.0, 0.98),
            "weight_decay": trial.suggest_float("optimizer/weight_decay", 1e-6, 1e-2, log=True),
            "nesterov": False,
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


def _schedule(trial: Trial, name: str) -> dict[str, object]:
    if name == "constant":
        return {"name": "constant"}
    return {
        "name": "plateau",
        "patience": trial.suggest_int("schedule/plateau/patience", 0, 5),
        "reduction": trial.suggest_float("schedule/plateau/reduction", 0.05, 0.7),
    }


SEARCH = Search(num_trials=100)
