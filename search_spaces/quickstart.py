"""A whole search in a few minutes: Mini-ResNet on the built-in data set, with nothing to download.

Source: the recipe of mini_resnet.py, shortened to 5 epochs on 2,000 images of the procedural `shapes` data set.

    cifar-tune run search_spaces/quickstart.py

Cost: about two and a half minutes on two CPU cores, a fifth of it start-up.
Expected: in so short a run the recipe's values stay near chance (20 to 23 %). The search finds 15 to 35 points more;
how much depends on which of two simultaneous trials happens to end first.
"""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet"},
    optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "step", "every": 20, "gamma": 0.5},
    epochs=5,
    batch_size=100,
    train_images=2000,
)


def space(trial: Trial) -> Recipe:
    """The choices that matter most in a short run."""
    return Recipe(
        dataset="shapes",
        model={"name": "mini_resnet"},
        optimizer={
            "name": "adam",
            "lr": trial.suggest_float("optimizer/lr", 3e-4, 3e-2, log=True),
        },
        schedule={"name": trial.suggest_categorical("schedule/name", ["step", "cosine", "one-cycle"])},
        epochs=5,
        batch_size=trial.suggest_categorical("batch_size", [25, 50, 100]),
        train_images=2000,
    )


SEARCH = Search(num_trials=12)
