"""Training what a record has left: Ray, the MLflow runs, the display, and what is said when it stops early."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from cifar_tune.commands.display import Display
from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.images import TrainingData
from cifar_tune.evaluation.reruns import Design, Kind, open_reruns, runs_name
from cifar_tune.provenance import as_typed, git_commit, hardware, package_versions
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.report.leaderboard import BAND, band
from cifar_tune.report.sentences import told_whole
from cifar_tune.search.driver import Driver, Observer
from cifar_tune.search.ray_settings import configure_ray
from cifar_tune.search.record import Record
from cifar_tune.search.resources import plan_resources
from cifar_tune.store import STATE, Keepsake, Store
from cifar_tune.trials.ranking import best_trial
from cifar_tune.trials.reading import delete_record, read_attributes
from cifar_tune.trials.trial import State, Trial

if TYPE_CHECKING:
    from cifar_tune.tracking.tracker import Tracker

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

Ending = Literal["complete", "out of time", "interrupted"]
Keeper = Callable[[Store, Sequence[Trial]], Observer]  # of the files that trials leave, given those there are


@dataclass(frozen=True)
class Means:
    """Where the data is and what to train with: flags that do not change what a trial gives.

    `time_budget` is in seconds; `store` as the user gave it, for the commands that are told.
    """

    data_dir: Path | None = None
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    address: str | None = None
    time_budget: float | None = None
    store: Path | None = None

    @property
    def where(self) -> list[str]:
        """The flag that names the store, where it was given."""
        return ["--store", str(self.store)] if self.store else []


def load_data(task: Recipe, store: Store, means: Means) -> TrainingData:
    """What the recipe's runs see."""
    return load_training_data(task.dataset, train_images=task.train_images, data_dir=means.data_dir, store=store.root)


@contextmanager
def kept_if_started(record: Record, store: Store) -> Iterator[Record]:
    """The record itself; one of which nothing could start leaves nothing behind."""
    try:
        yield record
    finally:
        if record.num_started == 0:
            delete_record(store, record.name)
            store.delete_search(record.name)


@contextmanager
def opened_reruns(
    store: Store, search: str, kind: Kind, design: Callable[[], tuple[int, Design]]
) -> Iterator[tuple[int, Design, Record]]:
    """Hold what `design` says is next, which is asked while nobody searches or deletes the search."""
    with ExitStack() as held:
        with store.running(search):
            count, found = design()
            held.enter_context(store.running(runs_name(search, kind, count)))
            record = open_reruns(store, search, kind, count, found)
        yield count, found, held.enter_context(kept_if_started(record, store))


def digest_weights(recipes: Sequence[Recipe], console: Console) -> dict[str, str]:
    """What the recipes start from, by digest; whatever is wrong with it is a UserError here."""
    if all(recipe.model.weights == "none" for recipe in recipes):
        return {}  # without torch, which the driver does not need
    from cifar_tune.training.weights import check_weights

    digests, notes = check_weights(recipes)
    for note in notes:
        console.print(note, highlight=False, markup=False)
    return digests


def execute(
    record: Record,
    store: Store,
    data: TrainingData,
    num_trials: int,
    means: Means,
    console: Console,
    *,
    keeps: Keepsake,
    keeper: Keeper,
) -> Ending:
    """Train until there are `num_trials`; what is not over then goes on when the same command is given again."""
    console.print(f"Starting the workers of {record.name} ...", style="dim")
    configure_ray(local=means.address is None)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(_open_tracker, record, store, data)  # seconds of imports, while Ray starts
        from cifar_tune.search.ray_tune import Interrupted, OutOfTime, ray_cluster

        state: State = "interrupted"
        try:
            if record.num_left(num_trials):
                with ray_cluster(means.address):
                    _run_trials(record, store, data, num_trials, means, opening.result, console, keeps, keeper)
            state = "completed"
        except Interrupted:
            return "interrupted"
        except OutOfTime:
            return "out of time"
        finally:
            opening.result().catch_up(record.trials())
            opening.result().finish(state)
            record.set_shown()
    return "complete"


def train_reruns(
    record: Record, design: Design, store: Store, means: Means, console: Console, *, keeps: Keepsake
) -> Ending:
    """Train what is left of the reruns; those that watch another's validation are trained on the images of it too."""
    warn_of_changed_versions(record, console)
    recipes = list(design.recipes.values())
    record.check_unchanged("weights", digest_weights(recipes, console))
    data = load_data(recipes[0], store, means)
    record.check_unchanged("data", data.digest)
    data = data.all_for_training() if design.watched else data
    return execute(record, store, data, design.num_runs, means, console, keeps=keeps, keeper=_NoState)


def log_outcome(store: Store, search: str) -> None:
    """Put what came of a search, as it is known now, beside its run in MLflow: in words, in figures and as a page."""
    from cifar_tune.report.findings import read_findings
    from cifar_tune.report.page import render_page  # with plotly, which only this needs
    from cifar_tune.tracking.runs import log_files, tell_outcome

    found, search_id = read_findings(store, [search]), read_attributes(store, search)["id"]
    best, confirmation = best_trial(found.searches[search]), found.confirmations.get(search)
    gain = confirmation.gains.get(best.number) if best and confirmation else None
    unjudged = dict.fromkeys(BAND, math.nan) if confirmation else {}  # in place of what another trial has gained
    figures = band(gain) if gain else unjudged
    tell_outcome(store, search_id, "\n\n".join(told_whole(found, search)))
    with TemporaryDirectory() as folder:
        (Path(folder) / "report.html").write_text(render_page(found), encoding="utf-8")
        log_files(store, search_id, Path(folder), figures)


class _NoState:
    """Frees the state of every rerun that is over. An Observer."""

    def __init__(self, store: Store, trials: Sequence[Trial]) -> None:
        self._store = store
        for trial in trials:  # one that ended when the process died may have left its state
            self.update(trial)

    def update(self, trial: Trial) -> None:
        """When it is over."""
        if trial.is_over:
            (self._store.trial(trial.search, trial.number) / STATE).unlink(missing_ok=True)

    def tick(self) -> None:
        """Nothing between two updates."""


def tell_ending(ending: Ending, console: Console) -> int:
    """Say how to go on from where it ended early; the exit code."""
    if ending == "complete":
        return 0
    reason = "Interrupted" if ending == "interrupted" else "The time budget is used up"
    console.print(f"{reason}. To go on from here: {as_typed(*sys.argv[1:])}", highlight=False, soft_wrap=True)
    return EXIT_INTERRUPTED if ending == "interrupted" else 0


def warn_of_changed_versions(record: Record, console: Console) -> None:
    """Other versions may give other numbers; that is no reason to refuse."""
    now = package_versions()
    before = record.remember_versions(now)
    changed = [f"{name} {before[name]} -> {now.get(name)}" for name in before if before[name] != now.get(name)]
    if changed:
        console.print(f"Warning: packages changed since the search began: {', '.join(changed)}.", style="yellow")


def _run_trials(
    record: Record,
    store: Store,
    data: TrainingData,
    num_trials: int,
    means: Means,
    tracker: Callable[[], "Tracker"],
    console: Console,
    keeps: Keepsake,
    keeper: Keeper,
) -> None:
    from cifar_tune.search.ray_tune import live_nodes, run_trials

    resources = plan_resources(
        live_nodes(),
        record.num_left(num_trials),
        cpus_per_trial=means.cpus_per_trial,
        gpus_per_trial=means.gpus_per_trial,
        max_concurrent=means.max_concurrent,
    )
    trials = record.trials()
    title = f"{record.name}: {data.dataset}, {len(data.train):,} training and {len(data.val):,} validation images"
    expected_epochs, drawn = record.space.search.scheduler.expected_epochs, record.space.draw_recipes()
    workers = resources.max_concurrent
    with Display(title, trials, num_trials, workers, console, expected_epochs, drawn) as display:
        tracker().catch_up(trials)
        driver = Driver(record, num_trials, [tracker(), keeper(store, trials), display])
        run_trials(driver, store, data, resources, keeps, means.time_budget)


def _open_tracker(record: Record, store: Store, data: TrainingData) -> "Tracker":
    from cifar_tune.tracking.tracker import Tracker

    tags = {**package_versions(), **hardware()}
    commit = git_commit(record.space.path)
    if commit:
        tags["mlflow.source.git.commit"] = commit
    return Tracker(store, record.name, data, record.space.description, tags, record)
