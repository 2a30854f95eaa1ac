"""A session: an open record, its data and its options, and the training of the trials that the record has left.

Ray, MLflow and the live display are started around the training. `run`, `confirm` and `evaluate` all train here.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Literal, ParamSpec

from rich.console import Console

from cifar_tune import DEFAULT_STORE, STORE_VARIABLE
from cifar_tune.commands.display import Display
from cifar_tune.commands.publishing import Publisher
from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.images import TrainingData
from cifar_tune.interrupts import EXIT_INTERRUPTED, Interrupted, acknowledge, held
from cifar_tune.provenance import as_typed, package_versions
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.driver import Driver, Observer
from cifar_tune.search.ray_settings import configure_ray
from cifar_tune.search.record import Record
from cifar_tune.search.resources import check_gpus_per_trial, plan_resources
from cifar_tune.store import Keepsake, Store
from cifar_tune.trials.reading import delete_record
from cifar_tune.trials.trial import State, Trial

EXIT_FAILED = 1

Ending = Literal["complete", "out of time", "interrupted"]
FileKeeper = Callable[[Store, Sequence[Trial]], Observer]  # made for the trials so far; keeps some of their files
P = ParamSpec("P")


@dataclass(frozen=True)
class TrainingOptions:
    """Flags that say where the data is and what to train with. None of them changes the result of a trial.

    `store` is the folder as the user typed it, for the commands that are printed. `time_budget` is in seconds.
    """

    data_dir: Path | None = None
    store: Path = Path(DEFAULT_STORE)
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    address: str | None = None
    time_budget: float | None = None

    def __post_init__(self) -> None:
        check_gpus_per_trial(self.gpus_per_trial)

    def command(self, *arguments: str) -> str:
        """A cifar-tune command on the same store, as the user would type it."""
        is_default = self.store == Path(DEFAULT_STORE) and not os.environ.get(STORE_VARIABLE)
        return as_typed(*arguments, *([] if is_default else ["--store", str(self.store)]))


@dataclass(frozen=True)
class Session:
    """An open record, the store it is in, the data of its trials, and what to train them with."""

    record: Record
    store: Store
    data: TrainingData
    options: TrainingOptions
    console: Console
    publisher: Publisher

    def train(self, num_trials: int, *, keeps: Keepsake, keeper: FileKeeper) -> Ending:
        """Train until the record has `num_trials`. What is left after another ending than "complete" can be resumed.

        A trial that is trained to its end writes what it `keeps`; `keeper` deletes files that are not needed any more.
        """
        self.console.print(f"Starting the workers of {self.record.name} ...", style="dim")
        if self.options.address is not None:
            configure_ray(local=False)
        with held():
            delivery = self.publisher.begin(self.data)
            self.publisher.check()
            from cifar_tune.search.ray_cluster import ray_cluster
            from cifar_tune.search.ray_tune import OutOfTime

            self.publisher.check()  # MLflow may have answered while Ray was imported
            state: State = "interrupted"
            try:
                if self.record.num_left(num_trials):
                    with ray_cluster(self.options.address):
                        self.publisher.wait_for_answer()
                        self._run_trials(num_trials, delivery, keeps, keeper)
                state = "completed"
            except Interrupted:
                return "interrupted"
            except OutOfTime:
                return "out of time"
            finally:
                self.publisher.end(state)
        return "complete"

    def _run_trials(self, num_trials: int, delivery: Observer, keeps: Keepsake, keeper: FileKeeper) -> None:
        from cifar_tune.search.ray_tune import live_nodes, run_trials

        record, data, options = self.record, self.data, self.options
        resources = plan_resources(
            live_nodes(),
            record.num_left(num_trials),
            cpus_per_trial=options.cpus_per_trial,
            gpus_per_trial=options.gpus_per_trial,
            max_concurrent=options.max_concurrent,
        )
        trials = record.trials()
        title = f"{record.name}: {data.dataset}, {len(data.train):,} training and {len(data.val):,} validation images"
        expected_epochs, drawn = record.space.search.scheduler.expected_epochs, record.space.draw_recipes()
        workers = resources.max_concurrent
        with Display(title, trials, num_trials, workers, self.console, expected_epochs, drawn) as display:
            driver = Driver(record, num_trials, [delivery, keeper(self.store, trials), display])
            is_shared = options.address is not None
            run_trials(driver, self.store, data, resources, keeps, options.time_budget, is_shared=is_shared)


def open_session(
    record: Record,
    store: Store,
    recipes: Sequence[Recipe],
    options: TrainingOptions,
    console: Console,
    publisher: Publisher,
) -> Session:
    """Load the data of the recipes, which have it in common, once everything is as the record began with it.

    Raises a UserError for other weights or other data. Other package versions are a warning only.
    """
    _warn_of_changed_versions(record, console)
    record.check_unchanged("weights", digest_weights(recipes, console))
    data = load_data(recipes[0], store, options)
    record.check_unchanged("data", data.digest)
    return Session(record, store, data, options, console, publisher)


def load_data(recipe: Recipe, store: Store, options: TrainingOptions) -> TrainingData:
    """The training and validation images of a recipe."""
    return load_training_data(
        recipe.dataset, train_images=recipe.train_images, data_dir=options.data_dir, store=store.root
    )


def digest_weights(recipes: Sequence[Recipe], console: Console) -> dict[str, str]:
    """Digests of the weight files that the recipes start from; a UserError where one is missing or does not fit."""
    if all(recipe.model.weights == "none" for recipe in recipes):
        return {}  # without torch, which the driver does not need
    from cifar_tune.training.weights import check_weights

    digests, notes = check_weights(recipes)
    for note in notes:
        console.print(note, highlight=False, markup=False)
    return digests


def _warn_of_changed_versions(record: Record, console: Console) -> None:
    """Other versions may give other numbers, which is no reason to refuse."""
    now = package_versions()
    before = record.remember_versions(now)
    changed = [f"{name} {before[name]} -> {now.get(name)}" for name in before if before[name] != now.get(name)]
    if changed:
        console.print(f"Warning: packages have changed since the search began: {', '.join(changed)}.", style="yellow")


@contextmanager
def kept_if_started(store: Store, open_it: Callable[[], Record]) -> Iterator[Record]:
    """The opened record, which is deleted again if no trial of it could start."""
    record: Record | None = None
    try:
        with held():
            record = open_it()
        yield record
    finally:
        if record is not None and record.num_started == 0:
            delete_record(store, record.name)
            store.delete_search(record.name)


def interruptible(train: Callable[P, Ending]) -> Callable[P, Ending]:
    """Return "interrupted" on Ctrl-C, also before and after the training, which catches it by itself."""

    @wraps(train)
    def call(*args: P.args, **kwargs: P.kwargs) -> Ending:
        try:
            return train(*args, **kwargs)
        except (Interrupted, KeyboardInterrupt):
            acknowledge()
            return "interrupted"

    return call


def explain_ending(ending: Ending, console: Console) -> int:
    """Print how to resume what ended early. Returns the exit code."""
    if ending == "complete":
        return 0
    reason = "Interrupted" if ending == "interrupted" else "The time budget is used up"
    console.print(f"{reason}. To resume: {as_typed(*sys.argv[1:])}", highlight=False, soft_wrap=True)
    return EXIT_INTERRUPTED if ending == "interrupted" else 0
