"""A session: an open record, its data and its options, and the training of the trials that the record has left.

Ray, MLflow and the live display are started around the training. `run`, `confirm` and `evaluate` all train here.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, ParamSpec

from rich.console import Console

from cifar_tune import DEFAULT_STORE, STORE_VARIABLE
from cifar_tune.commands.display import Display
from cifar_tune.commands.publishing import Publisher
from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.duplicates import warn_of_copies
from cifar_tune.data.images import OWN, TrainingData
from cifar_tune.interrupts import EXIT_INTERRUPTED, Interrupted, acknowledge, held
from cifar_tune.provenance import as_typed, package_versions
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.driver import Driver, Observer
from cifar_tune.search.ray_settings import configure_ray
from cifar_tune.search.record import Record
from cifar_tune.search.resources import Resources, check_gpus_per_trial, plan_resources
from cifar_tune.store import Keepsake, Store
from cifar_tune.trials.reading import delete_record
from cifar_tune.trials.trial import Trial

if TYPE_CHECKING:
    from cifar_tune.search.ray_cluster import Cluster

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

    def plan(self, nodes: Sequence[Mapping[str, float]], num_trials: int) -> Resources:
        """How trials share the nodes; a UserError where one would need more than a node has."""
        return plan_resources(
            nodes,
            num_trials,
            cpus_per_trial=self.cpus_per_trial,
            gpus_per_trial=self.gpus_per_trial,
            max_concurrent=self.max_concurrent,
        )

    def command(self, *arguments: str) -> str:
        """A cifar-tune command on the same store, as the user would type it."""
        is_default = self.store == Path(DEFAULT_STORE) and not os.environ.get(STORE_VARIABLE)
        return as_typed(*arguments, *([] if is_default else ["--store", str(self.store)]))


@dataclass(frozen=True)
class Session:
    """A record that is open until it has `num_trials`, the store it is in, its data, and what to train its trials with.

    Where trials are left, there is a `cluster` to train them on, which may still be starting.
    """

    record: Record
    num_trials: int
    store: Store
    data: TrainingData
    options: TrainingOptions
    console: Console
    publisher: Publisher
    cluster: "Cluster | None"

    def train(self, *, keeps: Keepsake, keeper: FileKeeper) -> Ending:
        """Train the trials that are left. What is left after another ending than "complete" can be resumed.

        A trial that is trained to its end writes what it `keeps`; `keeper` deletes files that are not needed any more.
        """
        with held():
            delivery = self.publisher.begin(self.data)
            self.publisher.check()
            ending: Ending = "interrupted"
            try:
                ending = self._run_trials(delivery, keeps, keeper)
            except Interrupted:
                return ending
            finally:
                self.publisher.end("completed" if ending == "complete" else "interrupted")
        return ending

    def _run_trials(self, delivery: Observer, keeps: Keepsake, keeper: FileKeeper) -> Ending:
        if self.cluster is None:
            return "complete"
        self.cluster.wait()  # before the import, because modules of Ray import each other, which two threads must not
        self.publisher.wait_for_answer()
        from cifar_tune.search.ray_tune import OutOfTime, live_nodes, run_trials

        record, num_trials, data, options = self.record, self.num_trials, self.data, self.options
        resources = options.plan(live_nodes(), record.num_left(num_trials))
        trials = record.trials()
        title = f"{record.name}: {data.dataset}, {len(data.train):,} training and {len(data.val):,} validation images"
        expected_epochs, drawn = record.space.search.scheduler.expected_epochs, record.space.draw_recipes()
        workers = resources.max_concurrent
        with Display(title, trials, num_trials, workers, self.console, expected_epochs, drawn) as display:
            driver = Driver(record, num_trials, [delivery, keeper(self.store, trials), display])
            is_shared = options.address is not None
            try:
                run_trials(driver, self.store, data, resources, keeps, options.time_budget, is_shared=is_shared)
            except OutOfTime:
                return "out of time"
        return "complete"


@contextmanager
def opened_session(
    record: Record,
    num_trials: int,
    store: Store,
    recipes: Sequence[Recipe],
    options: TrainingOptions,
    console: Console,
    publisher: Publisher,
) -> Iterator[Session]:
    """Load the data of the recipes, which have it in common, once everything is as the record began with it.

    Raises a UserError for other weights or other data. Other package versions are a warning only. Ray starts meanwhile.
    """
    with _cluster(record.num_left(num_trials), options) as cluster:
        _warn_of_changed_versions(record, console)
        record.check_unchanged("weights", digest_weights(recipes, console, record.weights))
        data = load_data(recipes[0], store, options)
        record.check_unchanged("data", data.digest)
        if data.dataset in OWN:  # the published ones are what others have, too
            warn(warn_of_copies(data.val, "validation", data.train), console)
        console.print(f"Starting the workers of {record.name} ...", style="dim")
        yield Session(record, num_trials, store, data, options, console, publisher, cluster)


@contextmanager
def _cluster(num_left: int, options: TrainingOptions) -> Iterator["Cluster | None"]:
    """Ray for the trials that are left, if any are."""
    if not num_left:
        yield None
        return
    if options.address is not None:
        configure_ray(local=False)
    with held():
        from cifar_tune.search.ray_cluster import starting_cluster
    with starting_cluster(options.address, lambda room: options.plan([room], num_left).max_concurrent) as cluster:
        yield cluster


def load_data(recipe: Recipe, store: Store, options: TrainingOptions) -> TrainingData:
    """The training and validation images of a recipe."""
    return load_training_data(
        recipe.dataset,
        train_images=recipe.train_images,
        data_dir=options.data_dir,
        store=store.root,
        image_size=recipe.image_size,
        num_classes=recipe.num_classes,
    )


def digest_weights(
    recipes: Sequence[Recipe], console: Console, known: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Digests of the weights that the recipes start from, the `known` ones where they are of the same files.

    Raises a UserError where weights are missing or do not fit.
    """
    if all(recipe.model.weights == "none" for recipe in recipes):
        return {}  # without torch, which the driver does not need
    from cifar_tune.training.weights import check_weights

    digests, notes = check_weights(recipes, known)
    for note in notes:
        console.print(note, highlight=False, markup=False)
    return digests


def warn(sentence: str | None, console: Console) -> None:
    """Print a sentence of warning, if there is one."""
    if sentence is not None:
        console.print(sentence, style="yellow", highlight=False, markup=False)


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
