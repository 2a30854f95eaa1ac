"""A narrow ResNet9 with a one-cycle schedule, small enough to record hundreds of whole trainings for the benchmark.

The ranges are somewhat wider than those of search_spaces/resnet9.py. Batches are smaller, because an epoch here has
4,000 images of 16x16 pixels. A whole training takes about 20 s on one core.
"""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="cifar10",
    model={"name": "resnet9", "width": 0.125, "dropout": 0.2},
    optimizer={"name": "adam", "lr": 0.01, "weight_decay": 1e-4},
    schedule={"name": "one-cycle", "shape": "linear-exponential"},
    grad_clip={"name": "value", "limit": 0.1},
    augment={"flip": True, "crop_padding": 2, "padding_mode": "reflect"},
    epochs=16,
    batch_size=64,
)


def space(trial: Trial) -> Recipe:
    """Ten values, which every recipe has."""
    return Recipe(
        dataset="cifar10",
        model={"name": "resnet9", "width": 0.125, "dropout": trial.suggest_float("model/dropout", 0.0, 0.6)},
        optimizer={
            "name": "adam",
            "lr": trial.suggest_float("optimizer/lr", 3e-4, 1e-1, log=True),
            "weight_decay": trial.suggest_float("optimizer/weight_decay", 1e-6, 1e-2, log=True),
        },
        schedule={
            "name": "one-cycle",
            "shape": trial.suggest_categorical("schedule/shape", ["linear-exponential", "torch"]),
            "initial_div": trial.suggest_float("schedule/initial_div", 2.0, 100.0, log=True),
        },
        grad_clip={"name": "value", "limit": trial.suggest_float("grad_clip/limit", 0.003, 1.0, log=True)},
        augment={
            "flip": trial.suggest_categorical("augment/flip", [True, False]),
            "crop_padding": trial.suggest_int("augment/crop_padding", 0, 4),
        },
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.3),
        epochs=16,
        batch_size=trial.suggest_categorical("batch_size", [32, 64, 128, 256]),
    )


SEARCH = Search(num_trials=100)
