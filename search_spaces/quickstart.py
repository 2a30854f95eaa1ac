"""A whole search in a minute or two: a small ResNet9 on the built-in data set, with nothing to download.

Source: the network of resnet9.py with an eighth of its channels, without dropout; Adam with its usual learning rate.

    cifar-tune run search_spaces/quickstart.py

Cost: about 16 epochs of three to six seconds on a CPU core, so half a minute to a minute on two free cores.
Expected: the baseline reaches 60 to 67 %, and the best trial 78 to 81 % with Muon; four or five of eight are pruned.
"""

from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="shapes",
    model={"name": "resnet9", "width": 0.125, "dropout": 0.0},
    optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "constant"},
    epochs=3,
    batch_size=32,
    train_images=4500,
)


def space(trial: Trial) -> Recipe:
    """The choices that matter most in a short run; the two optimizers have learning rates of their own."""
    if trial.suggest_categorical("optimizer/name", ["adam", "muon"]) == "adam":
        optimizer = {"name": "adam", "lr": trial.suggest_float("optimizer/adam/lr", 5e-4, 4e-3, log=True)}
    else:
        optimizer = {"name": "muon", "lr": trial.suggest_float("optimizer/muon/lr", 0.01, 0.06, log=True)}
    return Recipe(
        dataset="shapes",
        model=BASELINE.model,
        optimizer=optimizer,
        schedule={"name": trial.suggest_categorical("schedule/name", ["constant", "cosine"])},
        epochs=3,
        batch_size=32,
        train_images=4500,
    )


SEARCH = Search(num_trials=8)
