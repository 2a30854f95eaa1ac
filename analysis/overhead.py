"""Measures the overhead of a trial: its time besides training, on warm workers, with everything that a search does.

    uv run python analysis/overhead.py

Runs 40 trials of about 0.2 s, after a warm-up trial per worker, through Ray, Optuna, MLflow and the display on two
workers. Prints wall-clock time x workers / trials, less the mean time of training.
"""

import tempfile
import time
from pathlib import Path

from rich.console import Console

from cifar_tune.commands.display import Display
from cifar_tune.commands.trial_files import BestWeights
from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.images import Images, TrainingData
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record
from cifar_tune.search.ray_settings import configure_ray
from cifar_tune.search.space import load_space
from cifar_tune.store import open_store
from cifar_tune.trials.trial import Trial

NUM_TRIALS, NUM_WORKERS = 40, 2
NUM_TRAIN, NUM_VAL = 64, 32  # about 0.2 s of Mini-ResNet on one core

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.001},
                  schedule={"name": "constant"}, epochs=1, batch_size=32)


def space(trial):
    return BASELINE.replace({
        "optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
    })


SEARCH = Search(scheduler={"name": "none"})
"""


class Stopwatch:
    """Notes when each trial ends. An Observer of the search."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def update(self, trial: Trial) -> None:
        """Note the time if the trial is over."""
        if trial.is_over:
            self.ends.append(time.perf_counter())

    def tick(self) -> None:
        """Do nothing between two updates."""


def main() -> None:
    """Run the benchmark and print the overhead and its parts."""
    configure_ray(local=True)
    from cifar_tune.search.ray_cluster import ray_cluster
    from cifar_tune.search.ray_tune import run_trials
    from cifar_tune.search.resources import Resources
    from cifar_tune.tracking.delivery import Delivery
    from cifar_tune.tracking.outbox import Outbox
    from cifar_tune.tracking.subject import Subject

    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        (store.root / "space.py").write_text(SPACE)
        whole = load_training_data("shapes", train_images=None, data_dir=None, store=store.root)
        data = TrainingData(whole.dataset, whole.digest, _first(whole.train, NUM_TRAIN), _first(whole.val, NUM_VAL))
        record = open_record(store, "overhead", load_space(store.root / "space.py"), seed=0)
        stopwatch = Stopwatch()
        total = NUM_TRIALS + NUM_WORKERS
        with (
            ray_cluster(None),
            Display("overhead", [], total, NUM_WORKERS, Console(stderr=True, quiet=True), _whole) as display,
        ):
            subject = Subject(record.name, record.id, data.dataset, data.digest, "", "", {})
            delivery = Delivery(Outbox(store, Console(stderr=True)), subject, [], are_shown=False)
            driver = Driver(record, total, [delivery, BestWeights(store, []), display, stopwatch])
            run_trials(driver, store, data, Resources(1, 0.0, NUM_WORKERS))
        seconds = [trial.seconds for trial in record.trials()][NUM_WORKERS:]
        wall = stopwatch.ends[-1] - stopwatch.ends[NUM_WORKERS - 1]
    own = sum(seconds) / NUM_TRIALS
    slot = wall * NUM_WORKERS / NUM_TRIALS
    print(f"{NUM_TRIALS} trials on {NUM_WORKERS} warm workers: {wall:.1f} s of wall-clock time, {slot:.3f} s a trial,")
    print(f"{own:.3f} s of it training; the overhead is {slot - own:.3f} s a trial")


def _whole(recipe: Recipe) -> float:
    return recipe.epochs


def _first(images: Images, count: int) -> Images:
    return Images(images.images[:count], images.labels[:count])


if __name__ == "__main__":
    main()
