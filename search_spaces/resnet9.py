"""ResNet9 with a one-cycle schedule on CIFAR-10.

Source: the ResNet9 one-cycle notebook, "CIFAR-10 Classification with ResNet9": 8 epochs of Adam with weight decay 1e-4
and gradients clipped by value at 0.1; the learning rate rises linearly to 0.01 over the first half, and falls
exponentially over the second. It leaves open, and we chose: batches of 400, a cycle from max/25 to max/250,000.

    cifar-tune run search_spaces/resnet9.py

Cost: 60 trials of at most 8 epochs; a whole trial takes about an hour on two CPU cores.
Expected: a published single run of these values with torch's OneCycleLR reached 90.55 %, validated on the test images.
Here 10 % of the training images are held out for validation, which costs about 0.3 to 0.5 points.
"""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="cifar10",
    model={"name": "resnet9", "dropout": 0.2},
    optimizer={"name": "adam", "lr": 0.01, "weight_decay": 1e-4},
    schedule={"name": "one-cycle", "shape": "linear-exponential"},
    grad_clip={"name": "value", "limit": 0.1},
    augment={"flip": True, "crop_padding": 4, "padding_mode": "reflect"},
    scaling="dataset",
    epochs=8,
    batch_size=400,
)


def space(trial: Trial) -> Recipe:
    """Ranges around the notebook's values."""
    return Recipe(
        dataset="cifar10",
        model={"name": "resnet9", "dropout": trial.suggest_float("model/dropout", 0.0, 0.5)},
        optimizer={
            "name": "adam",
            "lr": trial.suggest_float("optimizer/lr", 1e-3, 3e-2, log=True),
            "weight_decay": trial.suggest_float("optimizer/weight_decay", 1e-6, 1e-2, log=True),
        },
        schedule={
            "name": "one-cycle",
            "shape": trial.suggest_categorical("schedule/shape", ["linear-exponential", "torch"]),
        },
        grad_clip={"name": "value", "limit": trial.suggest_float("grad_clip/limit", 0.01, 1.0, log=True)},
        augment={"flip": True, "crop_padding": trial.suggest_int("augment/crop_padding", 0, 6)},
        scaling="dataset",
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
        epochs=8,
        batch_size=trial.suggest_categorical("batch_size", [100, 200, 400, 800]),
    )


SEARCH = Search(num_trials=60)
