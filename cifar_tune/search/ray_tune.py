"""Ray Tune as the executor of a search: it places trials on workers and passes on their reports; the driver decides.

Importing this module imports Ray, and `configure_ray` has to run before that.
"""

import math
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from cifar_tune import interrupts
from cifar_tune.data.images import TrainingData
from cifar_tune.errors import FaultError, UserError
from cifar_tune.search import ray_function
from cifar_tune.search.driver import Driver
from cifar_tune.search.planner import Planner
from cifar_tune.search.resources import Resources
from cifar_tune.store import Keepsake, Store

if TYPE_CHECKING:
    from cifar_tune.search.ray_worker import Assignment

SECONDS_TO_START = 600.0  # a worker, where none runs; on a busy machine with slow disks it takes minutes
SECONDS_BETWEEN_LOOKS = 1.0  # at the record
# Seconds in which Ray's loop waits for the next trial: in the first it would do other things, in the second sleep.
PATIENCE, PATIENCE_AT_REST = 0.02, 2.0
NUM_NEW_WORKERS = 2  # tries with a new worker for a trial whose worker dies; each resumes the last checkpoint
# In Ray's errors for which no recipe is to blame: Ray's memory monitor, a lost node, a GPU that is out of order, a
# worker that cannot import what it needs, one that cannot be reached.
MACHINE_SIGNS = (
    "running low on memory",
    "node has died",
    "node died",
    "CUDA error",
    "unexpected internal error",
    "unavailable",
    "RpcError",
)


class SearchStopped(BaseException):
    """Ends Ray's loop between two events; not an `Exception`, so that Ray does not treat it as a failure of its own.

    Ray's own ways to end wait for the workers one by one, for 5 to 15 s; shutting down the cluster ends all at once.
    """


class Complete(SearchStopped):
    """Every trial is over."""


class OutOfTime(SearchStopped):
    """The time budget is used up."""


class Faulted(SearchStopped):
    """The trials fail for a reason that is not in their recipes."""


class Lost(SearchStopped):
    """The record cannot be read any more."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def live_nodes() -> list[dict[str, float]]:
    """The resources of each node of the cluster, like `{"CPU": 16, "GPU": 1}`."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def run_trials(
    driver: Driver,
    store: Store,
    data: TrainingData,
    resources: Resources,
    keeps: Keepsake = "weights",
    time_budget: float | None = None,
    *,
    is_shared: bool = False,
) -> None:
    """Run the trials that are left of the search; raises OutOfTime or interrupts.Interrupted where that ends it first.

    Raises a UserError where trials fail for a reason that is not in their recipes. Running trials are then marked as
    interrupted in the record, and paused ones stay paused. A trial that is trained to its end leaves a file in its
    folder: its weights, or which validation images it classified correctly, as `keeps` says. `time_budget` is in
    seconds. A Ray that `is_shared` with other programs may have no room for a worker for hours.
    """
    trainable = tune.with_resources(
        tune.with_parameters(ray_function.train, data=data),
        {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
    )
    # With fewer pending trials than workers, Ray would give a trial whose worker is still starting the first free one,
    # and discard the half-started worker: all short trials would run on one worker.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resources.max_concurrent)
    folder = store.search(driver.record.name) / "ray"
    planner = Planner(driver, resources.max_concurrent)
    pulse = _Pulse(driver, time_budget, math.inf if is_shared else SECONDS_TO_START)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=_DriverSearcher(driver, planner, store, resources, keeps),
            scheduler=_DriverScheduler(driver),
            num_samples=-1,  # the driver knows when there are no more; a trial that is put back is started again
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
        with (
            planner.planning(),
            interrupts.held(),
            suppress(Complete),
        ):  # between two events, and not in the middle of a write
            tuner.fit()
            raise RuntimeError("Ray ended the search before its trials were over; run the same command to continue.")
        driver.end_search()
    except Faulted:
        raise UserError(
            f"{driver.fault} Mend the cause and run the same command again; trials that were not finished go on."
        ) from None
    except Lost as lost:
        raise lost.error from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # Ray's own state, which is never read
        driver.interrupt()


def _name(trial: RayTrial) -> str:
    """Ray's name for a trial; one that is started again has the same number, but another id."""
    return f"trial-{trial.config['number']:05d}-{trial.trial_id}"


def _absolute(weights: str) -> str:
    """The path of weights made absolute, because a worker may run in another folder."""
    return weights if weights in ("none", "imagenet") else str(Path(weights).expanduser().absolute())


class _NotSaved:
    """Pickled as a plain object: Tune pickles its parts to restore them later, which never happens here."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


class _DriverSearcher(_NotSaved, Searcher):  # type: ignore[misc]
    """Ray's searcher: hands out the driver's next trial whenever a worker is free."""

    def __init__(self, driver: Driver, planner: Planner, store: Store, resources: Resources, keeps: Keepsake) -> None:
        super().__init__()  # without a metric, because a trial that breaks down reports none
        self._planner = planner
        self._keeps = keeps
        self._driver = driver
        self._store = store
        self._resources = resources
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> "Assignment | None":
        trial = None
        if self._driver.can_start and len(self._running) < self._resources.max_concurrent:
            trial = self._planner.next_trial(PATIENCE if self._running else PATIENCE_AT_REST)
        if trial is None:
            if self._driver.is_over:  # Ray would wait ten minutes for a trial, as nothing runs
                raise Complete
            return None
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
            "gpus": self._resources.gpus_per_trial,
            "keeps": self._keeps,
            "score": self._driver.record.goal.score,
            "watched": self._driver.record.space.watched(trial.params),
            "pauses": sorted(self._driver.pauses(trial)),
            "handed_at": time.time(),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._running.discard(trial_id)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Do nothing: the driver writes the record."""


class _DriverScheduler(_NotSaved, TrialScheduler):  # type: ignore[misc]
    """Ray's scheduler: passes reports to the driver, and the driver's decisions to Ray."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    def on_trial_add(self, tune_controller: object, trial: RayTrial) -> None:
        """Do nothing: the driver has started the trial."""

    def on_trial_result(self, tune_controller: object, trial: RayTrial, result: Mapping[str, Any]) -> str:
        number = trial.config["number"]
        if not self._driver.record.is_live(number):
            return str(TrialScheduler.STOP)  # it was ended because it took too long
        facts = _part(result, "facts/")
        if result.get("state") == "interrupted":
            self._driver.put_back(number, result["error"])
            return str(TrialScheduler.STOP)
        if "state" in result:
            self._driver.finish(number, result["state"], facts=facts, error=result.get("error"))
            return str(TrialScheduler.STOP)
        goes_on = self._driver.add_epoch(number, _part(result, "metrics/"), facts)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: object, trial: RayTrial) -> None:
        """Do nothing: Ray calls this for trials that it starts again, too."""

    def on_trial_complete(self, tune_controller: object, trial: RayTrial, result: Mapping[str, Any]) -> None:
        """Do nothing: the driver has closed the trial."""

    def on_trial_remove(self, tune_controller: object, trial: RayTrial) -> None:
        """Do nothing."""

    def choose_trial_to_run(self, tune_controller: object) -> RayTrial | None:
        """None, so that Ray starts pending trials in their order."""
        return None


class _Pulse(_NotSaved, tune.Callback):  # type: ignore[misc]
    """Between two events of Ray: closes a trial that Ray gives up, refreshes observers, ends the search in time."""

    def __init__(self, driver: Driver, time_budget: float | None, seconds_to_start: float) -> None:
        self._driver = driver
        self._seconds_to_start = seconds_to_start
        self._deadline = time.monotonic() + time_budget if time_budget is not None else float("inf")
        self._num_oom_kills = num_oom_kills()
        self._waiting_since = time.monotonic()  # for any worker
        self._looked_at = -math.inf

    def on_step_begin(self, iteration: int, trials: list[RayTrial], **info: object) -> None:
        """Take SIGUSR1 back, for which Tune installs a handler of its own when it begins."""
        if iteration <= 1:
            interrupts.reinstall()

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        """Close a trial whose workers have all died, with Ray's own error, or put it back if the machine failed."""
        number = trial.config["number"]
        if not self._driver.record.is_live(number):
            return  # it was ended because it took too long
        error = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "Its worker died."
        if any(sign in error for sign in MACHINE_SIGNS):
            self._driver.put_back(number, error)
        elif num_oom_kills() > self._num_oom_kills:
            self._num_oom_kills = num_oom_kills()
            self._driver.finish(number, "out of memory", error=error)
        else:
            self._driver.finish(number, "failed", error=error)

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: object) -> None:
        """Free Ray's statistics of the metrics of a trial, 70 kB that nothing reads."""
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: object) -> None:
        self._driver.tick()
        self._look_at_record()
        for number in self._driver.end_overdue():
            for trial in trials:
                if trial.config["number"] == number and trial.status == RayTrial.RUNNING:
                    trial.max_failures = 0  # not started again
                    ray.kill(trial.temporary_state.ray_actor)
        if self._driver.is_over:
            raise Complete
        if self._driver.fault is not None:
            raise Faulted
        interrupts.raise_if_requested()
        self._check_workers(trials)
        if time.monotonic() > self._deadline:
            raise OutOfTime

    def _look_at_record(self) -> None:
        """End the search soon after its record is gone, rather than at its next epoch."""
        if time.monotonic() > self._looked_at + SECONDS_BETWEEN_LOOKS:
            try:
                self._driver.record.look()
            except Exception as error:
                raise Lost(error) from error
            self._looked_at = time.monotonic()

    def _check_workers(self, trials: list[RayTrial]) -> None:
        """Raise a FaultError where no worker starts, which Ray would try for ever."""
        if any(trial.status == RayTrial.RUNNING for trial in reversed(trials)):  # those are the latest ones
            self._waiting_since = time.monotonic()
        elif time.monotonic() > self._waiting_since + self._seconds_to_start:
            raise FaultError("Ray's workers do not start; free memory or processes, then run the same command again.")


def num_oom_kills() -> int:
    """The number of processes that this machine's kernel has killed for want of memory; 0 where it does not count."""
    with suppress(OSError):
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines())
        return int(counters.get("oom_kill", 0))
    return 0


def _part(result: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The part of a report under a prefix, which Ray flattened: `metrics/epoch` becomes `epoch` again."""
    return {name.removeprefix(prefix): value for name, value in result.items() if name.startswith(prefix)}
