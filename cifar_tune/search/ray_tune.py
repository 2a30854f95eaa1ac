"""Ray Tune as the executor of a search: it places trials on workers and carries reports; the driver decides.

Importing this imports Ray; `configure_ray` has to run before that.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from cifar_tune.data.images import TrainingData
from cifar_tune.errors import UserError
from cifar_tune.search.driver import Driver
from cifar_tune.search.resources import Resources
from cifar_tune.store import Keepsake, Store

if TYPE_CHECKING:
    from cifar_tune.search.ray_worker import Assignment

NUM_NEW_WORKERS = 2  # for a trial whose worker dies; each goes on from the last checkpoint


class SearchStopped(BaseException):
    """Ends Ray's loop between two events; no `Exception`, so that Ray does not take it for a failure of its own.

    Ray's own ways to end wait for its workers one by one, for 5 to 15 s; the end of the cluster takes them all at once.
    """


class Complete(SearchStopped):
    """Every trial is over."""


class OutOfTime(SearchStopped):
    """The time budget is used up."""


class Interrupted(SearchStopped):
    """Ctrl-C, or a SIGTERM."""


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """A Ray for the time of the block: one on this machine alone, or the cluster at `address`."""
    options = {} if address else {"include_dashboard": False}
    try:
        # Without an address Ray joins whatever cluster its temporary folder names.
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, ray.exceptions.RaySystemError) as error:
        if address is None:
            raise
        raise UserError(f"There is no Ray cluster at {address}; start it, or leave out --address.") from error
    try:
        yield
    finally:
        ray.shutdown()


def live_nodes() -> list[dict[str, float]]:
    """What each node of the cluster has: `{"CPU": 16, "GPU": 1}`."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def run_trials(
    driver: Driver,
    store: Store,
    data: TrainingData,
    resources: Resources,
    keeps: Keepsake = "weights",
    time_budget: float | None = None,
) -> None:
    """Run what is left of the search; raises OutOfTime or Interrupted where that ends it, with nothing left open.

    Every trial that is trained to its end leaves what it `keeps` in its folder; `time_budget` is in seconds.
    """
    trainable = tune.with_resources(
        tune.with_parameters(_train, data=data),
        {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
    )
    # With fewer pending trials than workers, a trial whose worker still starts would take over the first free one, and
    # its own, half started, would be thrown away: short trials would all run on one worker.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resources.max_concurrent)
    folder = store.search(driver.record.name) / "ray"
    pulse = _Pulse(driver, time_budget)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=_Assigner(driver, store, resources, keeps),
            scheduler=_Judge(driver),
            num_samples=driver.num_left,
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            callbacks=[pulse],
            failure_config=tune.FailureConfig(max_failures=NUM_NEW_WORKERS),
            verbose=0,
        ),
    )
    try:
        with pulse.catching_signals(), suppress(Complete):
            tuner.fit()
            raise RuntimeError("Ray ended the search before its trials were over; run it again to go on.")
    finally:
        driver.interrupt()
        shutil.rmtree(folder, ignore_errors=True)  # Ray's own state, which nothing here reads


def _train(config: "Assignment", data: TrainingData) -> None:
    """Imports torch in the worker: the driver starts seconds sooner without it, and needs it for forecasts alone."""
    taken_at = time.time()
    from cifar_tune.search.ray_worker import train_trial

    train_trial(config, data, taken_at)


def _name(trial: RayTrial) -> str:
    return f"trial-{trial.config['number']:05d}"


def _absolute(weights: str) -> str:
    """A worker may run in another folder."""
    return weights if weights in ("none", "imagenet") else str(Path(weights).expanduser().absolute())


class _NotSaved:
    """Tune pickles what it is given, to restore itself later; these it never has to restore."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


class _Assigner(_NotSaved, Searcher):  # type: ignore[misc]
    """Gives Ray the driver's next trial whenever a worker is free."""

    def __init__(self, driver: Driver, store: Store, resources: Resources, keeps: Keepsake) -> None:
        super().__init__()  # no metric: a trial that broke down reports none
        self._keeps = keeps
        self._driver = driver
        self._store = store
        self._resources = resources
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> "Assignment | None":
        if len(self._running) >= self._resources.max_concurrent:
            return None
        trial = self._driver.next_trial()
        self._running.add(trial_id)
        return {
            "number": trial.number,
            "recipe": trial.recipe.model_dump(mode="json"),
            "folder": str(self._store.trial(trial.search, trial.number)),
            "num_epochs_recorded": trial.epochs,
            "features": str(self._store.features),
            "weights": _absolute(trial.recipe.model.weights),
            "weights_digest": self._driver.record.weights.get(trial.recipe.model.weights),
            "num_threads": self._resources.cpus_per_trial,
            "use_gpu": self._resources.gpus_per_trial > 0,
            "keeps": self._keeps,
            "watched": self._driver.record.space.watched(trial.params),
            "handed_at": time.time(),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._running.discard(trial_id)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the record is the driver's."""


class _Judge(_NotSaved, TrialScheduler):  # type: ignore[misc]
    """Hands reports to the driver and its decision to Ray."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    def on_trial_add(self, tune_controller: object, trial: RayTrial) -> None:
        """Nothing: the driver started it."""

    def on_trial_result(self, tune_controller: object, trial: RayTrial, result: Mapping[str, Any]) -> str:
        number = trial.config["number"]
        facts = _part(result, "facts/")
        if "state" in result:
            self._driver.finish(number, result["state"], facts=facts, error=result.get("error"))
            return str(TrialScheduler.STOP)
        goes_on = self._driver.add_epoch(number, _part(result, "metrics/"), facts)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: object, trial: RayTrial) -> None:
        """Nothing: Ray says this of a trial that it starts again, too."""

    def on_trial_complete(self, tune_controller: object, trial: RayTrial, result: Mapping[str, Any]) -> None:
        """Nothing: the driver closed it when it decided to."""

    def on_trial_remove(self, tune_controller: object, trial: RayTrial) -> None:
        """Nothing."""

    def choose_trial_to_run(self, tune_controller: object) -> RayTrial | None:
        """None: Ray starts pending trials in their order."""
        return None


class _Pulse(_NotSaved, tune.Callback):  # type: ignore[misc]
    """Between two events: note a trial that is given up, refresh the observers, end the search when it is time."""

    def __init__(self, driver: Driver, time_budget: float | None) -> None:
        self._driver = driver
        self._deadline = time.monotonic() + time_budget if time_budget is not None else float("inf")
        self._interrupted = False

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Within the block Ctrl-C and SIGTERM end the search at the next event, not in the middle of a write."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        """Its workers died, the last one too: say so in Ray's own words."""
        error = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "Its worker died."
        out_of_memory = "running low on memory" in error  # Ray's memory monitor ended the worker
        self._driver.finish(trial.config["number"], "out of memory" if out_of_memory else "failed", error=error)

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: object) -> None:
        self._driver.tick()
        if self._driver.is_over:
            raise Complete
        if self._interrupted:
            raise Interrupted
        if time.monotonic() > self._deadline:
            raise OutOfTime


def _part(result: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What Ray flattened to `metrics/epoch`, by the names that the worker used."""
    return {name.removeprefix(prefix): value for name, value in result.items() if name.startswith(prefix)}
