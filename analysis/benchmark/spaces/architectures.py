"""Two architectures at many widths: the model decides which other values there are.

An epoch of one configuration costs up to ten times as much as one of another.
"""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="cifar10",
    model={"name": "mini_resnet", "width": 0.5},
    optimizer={"name": "adamw", "lr": 0.001, "weight_decay": 0.01},
    schedule={"name": "cosine"},
    augment={"flip": True, "crop_padding": 2},
    epochs=12,
    batch_size=50,
)


def space(trial: Trial) -> Recipe:
    """Nine values of the Mini-ResNet, eleven of the ResNet9."""
    name = trial.suggest_categorical("model/name", ["mini_resnet", "resnet9"])
    schedule = trial.suggest_categorical("schedule/name", ["cosine", "one-cycle"])
    return Recipe(
        dataset="cifar10",
        model=_model(trial, name),
        optimizer={
            "name": "adamw",
            "lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-1, log=True),
            "weight_decay": trial.suggest_float("optimizer/weight_decay", 1e-4, 1.0, log=True),
            "decay_norms_and_biases": trial.suggest_categorical("optimizer/decay_norms_and_biases", [True, False]),
        },
        schedule={"name": schedule},
        grad_clip=_grad_clip(trial) if name == "resnet9" else {"name": "none"},
        augment={
            "flip": trial.suggest_categorical("augment/flip", [True, False]),
            "crop_padding": trial.suggest_int("augment/crop_padding", 0, 3),
        },
        epochs=12,
        batch_size=trial.suggest_categorical("batch_size", [25, 50, 100]),
    )


def _model(trial: Trial, name: str) -> dict[str, object]:
    if name == "mini_resnet":
        return {"name": name, "width": trial.suggest_float("model/mini_resnet/width", 0.25, 1.0, log=True)}
    return {
        "name": name,
        "width": trial.suggest_float("model/resnet9/width", 0.06, 0.25, log=True),
        "dropout": trial.suggest_float("model/resnet9/dropout", 0.0, 0.5),
    }


def _grad_clip(trial: Trial) -> dict[str, object]:
    return {"name": "value", "limit": trial.suggest_float("grad_clip/limit", 0.003, 1.0, log=True)}


SEARCH = Search(num_trials=100)
