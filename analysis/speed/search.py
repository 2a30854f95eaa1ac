"""Measures what a search takes besides its training, against a stock script of Ray Tune on the same trials.

    uv run python analysis/speed/search.py
    uv run python analysis/speed/search.py --trials 8 --images 4000 --json search.json

Ours runs with everything that a search does. The stock script is what tutorials show: Ray Tune, OptunaSearch, ASHA and
Ray's MLflow callback, with the same training in its function. Both train every trial to its end, on NUM_WORKERS
workers of one core, each in a process and a Ray of its own, in turn. Prints seconds: of the search, from the first
trial's wait to the last one's end; of training, per worker; and the rest. The busy share is that of warm workers: of
the time from the end of a trial to the end of the next one on its worker.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

NUM_WORKERS, EPOCHS, NUM_VAL = 2, 4, 64
# Workers that are no nicer than what they are compared with, and that build no environment of their own for `uv run`.
SWITCHES = {"RAY_worker_niceness": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
RECIPE = {
    "dataset": "shapes",
    "model": {"name": "mini_resnet", "width": 0.5},
    "optimizer": {"name": "adam", "lr": 0.001},
    "schedule": {"name": "constant"},
    "epochs": EPOCHS,
    "batch_size": 32,
}
SPACE = f"""from cifar_tune import Recipe, Search

BASELINE = Recipe(**{RECIPE!r})

def space(trial):
    return BASELINE.replace({{
        "optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
    }})

SEARCH = Search(scheduler={{"name": "none"}})
"""
Spans = list[tuple[float, float]]  # of each trial's training: its begin and its end, in seconds since 1970


def ours(folder: Path, num_trials: int, num_images: int) -> tuple[float, Spans, float]:
    """Run the search as the command does; when it began, the spans of training, and when it ended."""
    from cifar_tune.search.ray_settings import configure_ray

    configure_ray(local=True)
    from cifar_tune.commands.display import Display
    from cifar_tune.commands.trial_files import BestWeights
    from cifar_tune.search.driver import Driver
    from cifar_tune.search.identity import open_record
    from cifar_tune.search.ray_cluster import ray_cluster
    from cifar_tune.search.ray_tune import run_trials
    from cifar_tune.search.resources import Resources
    from cifar_tune.search.space import load_space
    from cifar_tune.store import open_store
    from cifar_tune.tracking.delivery import Delivery
    from cifar_tune.tracking.outbox import Outbox
    from cifar_tune.tracking.subject import Subject
    from cifar_tune.trials.facts import DATA, STARTUP, TAKEN_AT

    store, data = open_store(folder / "store"), _data(folder, num_images)
    (folder / "space.py").write_text(SPACE, encoding="utf-8")
    record = open_record(store, "speed", load_space(folder / "space.py"), seed=0)
    console = Console(stderr=True, quiet=True)
    display = Display("speed", [], num_trials, NUM_WORKERS, console, lambda recipe: recipe.epochs)
    outbox = Outbox(store, console)
    with ray_cluster(None), display:
        delivery = Delivery(outbox, Subject("speed", record.id, "shapes", data.digest, "", "", {}), [], are_shown=False)
        driver = Driver(record, num_trials, [delivery, BestWeights(store, []), display])
        begin = time.time()
        run_trials(driver, store, data, Resources(1, 0.0, NUM_WORKERS))
        delivery.finish("completed")
        outbox.wait()
        end = time.time()
    # The record has when the worker took the trial, the seconds until its training began, and those of each epoch.
    spans = [(sum(trial.facts[name] for name in (TAKEN_AT, STARTUP, DATA)), trial.seconds) for trial in record.trials()]
    return begin, [(first, first + seconds) for first, seconds in spans], end


def stock(folder: Path, num_trials: int, num_images: int) -> tuple[float, Spans, float]:
    """The same by a stock script."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    data = _data(folder, num_images)

    def train(config: dict[str, Any]) -> None:
        import torch

        from cifar_tune.recipe.recipe import Recipe
        from cifar_tune.training.inputs import DeviceData
        from cifar_tune.training.loop import Training

        torch.set_num_threads(1)
        recipe = Recipe.model_validate(RECIPE).replace(
            {"optimizer/lr": config["lr"], "label_smoothing": config["label_smoothing"]}
        )
        training = Training(recipe, DeviceData.place(data, torch.device("cpu")))
        begin = time.time()
        for metrics in training.fit():
            begin = min(begin, time.time() - metrics.seconds)
            tune.report(
                {"val_accuracy": metrics.val_accuracy, "loss": metrics.train_loss, "begin": begin, "end": time.time()}
            )

    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={
            "lr": tune.loguniform(1e-4, 1e-2),
            "label_smoothing": tune.uniform(0.0, 0.2),
        },
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            num_samples=num_trials,
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=EPOCHS),
            max_concurrent_trials=NUM_WORKERS,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "results"),
            callbacks=[MLflowLoggerCallback(f"sqlite:///{folder / 'mlflow.db'}", experiment_name="speed")],
            verbose=0,
        ),
    )
    begin = time.time()
    results = tuner.fit()
    end = time.time()
    metrics = [result.metrics for result in results if result.metrics]
    return begin, [(each["begin"], each["end"]) for each in metrics], end


def _data(folder: Path, num_images: int) -> Any:  # noqa: ANN401 - imported late, as everything here
    from cifar_tune.data.datasets import load_training_data
    from cifar_tune.data.images import Images

    whole = load_training_data("shapes", train_images=None, data_dir=None, store=folder)
    train, val = (
        Images(part.images[:size], part.labels[:size])
        for part, size in ((whole.train, num_images), (whole.val, NUM_VAL))
    )
    return replace(whole, train=train, val=val)


def figures(begin: float, spans: Spans, end: float) -> dict[str, float]:
    """What the table shows of one run.

    From the moment when every worker has had its first trial, each trial that ends frees the worker of one that begins,
    until none is left to begin.
    """
    training = sum(last - first for first, last in spans) / NUM_WORKERS
    warm = sorted(spans)[NUM_WORKERS:]
    begins = [first for first, _ in warm]
    ends = sorted(last for _, last in spans)[: len(begins)]
    idle = sum(begins) - sum(ends)
    return {
        "search": end - begin,
        "training": training,
        "rest": end - begin - training,
        "per_trial": idle / len(begins),
        "busy": 1 - idle / (idle + sum(last - first for first, last in warm)),
    }


COLUMNS = {
    "search": "search, s",
    "training": "of it training, s",
    "rest": "the rest, s",
    "per_trial": "warm worker's time beside a trial, s",
    "busy": "busy share of warm workers",
}


def main() -> None:
    """Run both in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--images", type=int, default=512, help="training images of a trial: its length")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path, help="another checkout of cifar-tune")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--measure", choices=["ours", "stock"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        with tempfile.TemporaryDirectory() as folder:
            run = {"ours": ours, "stock": stock}[arguments.measure]
            measured = figures(*run(Path(folder), arguments.trials, arguments.images))
        print("\n" + json.dumps(measured), flush=True)
        os._exit(0)  # Ray and MLflow have threads that end late
    root = Path(__file__).parents[2]
    runs = [("ours", root), ("stock", root), *([("ours", arguments.against.absolute())] if arguments.against else [])]
    rows = []
    print("| what | " + " | ".join(COLUMNS.values()) + " |\n" + "|---" * (len(COLUMNS) + 1) + "|")
    for _ in range(arguments.rounds):
        for name, checkout in runs:
            command = [sys.executable, __file__, "--measure", name]
            sizes = ["--trials", str(arguments.trials), "--images", str(arguments.images)]
            environment = {**os.environ, "PYTHONPATH": str(checkout), **SWITCHES}
            done = subprocess.run(
                [*command, *sizes],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            )
            label = name if checkout == root else f"{name}, other checkout"
            rows.append({"what": label, **json.loads(done.stdout.splitlines()[-1])})
            print(f"| {label} | " + " | ".join(f"{rows[-1][column]:.3f}" for column in COLUMNS) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
