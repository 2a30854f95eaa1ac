"""The record of a search: its Optuna study in the store. Ray executes and MLflow shows; the record is what counts.

A trial's state, recipe and learning curve are user attributes of its Optuna trial, so optuna-dashboard and the `optuna`
command show them too. Each change is written before an observer hears of it, and those of one `event` in one
transaction. identity.py opens a record.

The values of the next trials may be chosen ahead, in another thread (`prepare`). Nothing of a trial is written before
it is started, so one that is never started leaves no trace. Where the space fails at a draw, those before it are
written with it, and the next command resumes them.

A paused trial is one that left its worker with a checkpoint and waits to be taken up again. As long as that may happen
Optuna has it as RUNNING. It stays paused when it is prepared, until it is started.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import wraps
from threading import Lock
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.crashes import Crashes
from cifar_tune.search.draws import EXHAUSTED, REFUSED, Draws, NoTrialLeftError
from cifar_tune.search.forecast import Forecast
from cifar_tune.search.space import Space
from cifar_tune.training.scores import metric_name
from cifar_tune.trials.facts import LEFT_OUT, with_facts
from cifar_tune.trials.goal import CostName
from cifar_tune.trials.reading import NUM_SHOWN, PRIOR, Extension, as_trials, extension_of
from cifar_tune.trials.study_storage import StudyStorage
from cifar_tune.trials.trial import OPTUNA_STATES, State, Trial, as_trial, changed_epochs

P = ParamSpec("P")
T = TypeVar("T")

RETRIED = "retried"  # attribute of the search: numbers of failed trials whose recipes were tried again
CONVERGED = "converged"  # attribute of the search: the number of trials after which no recipe was worth a training
UNKNOWN_COST = 1e5  # of a trial that broke down before any trial had a cost; larger than usual costs of every kind


@dataclass(frozen=True)
class _Prepared:
    """A trial that is not started yet: Optuna's, and ours."""

    asked: optuna.Trial
    trial: Trial
    origin: Literal["new", "interrupted", "paused"]


def _written(change: Callable[Concatenate["Record", P], T]) -> Callable[Concatenate["Record", P], T]:
    """The method of a record as an event: all that it changes is written when it ends."""

    @wraps(change)
    def call(record: "Record", /, *args: P.args, **kwargs: P.kwargs) -> T:
        with record.event():
            return change(record, *args, **kwargs)

    return call


class Record:
    """One search's study, open for reading and writing; `open_record` opens it."""

    def __init__(self, study: optuna.Study, space: Space, forecast: Forecast | None, crashes: Crashes) -> None:
        self.study = study
        self.space = space
        self.forecast = forecast
        self.crashes = crashes
        self.goal = space.search.goal
        self.name = study.study_name
        self.id = str(study.user_attrs["id"])
        self.seed = int(study.user_attrs["identity"]["seed"])
        self._asked: dict[int, optuna.Trial] = {}  # the live trials as Optuna gave them
        self._paused: dict[int, optuna.Trial] = {}  # those that wait, but not those that are prepared
        self._moving = Lock()  # held while one of them becomes a prepared one
        self._prepared: deque[_Prepared] = deque()
        self._depth = 0  # of events within events
        self.ends_when_converged = False  # whether recipes are chosen only while they are expected to be worth it
        self._close_left_open()
        all_trials = study.get_trials(deepcopy=False)
        self._num_written = len(all_trials)  # trials from this number on are not started yet
        left_open = [trial for trial in all_trials if trial.state == TrialState.RUNNING]
        interrupted = [trial.number for trial in left_open if trial.user_attrs.get("state") != "paused"]
        self._num_started = sum(t.state != TrialState.WAITING and not _is_no_trial(t) for t in all_trials)
        self._num_started -= len(study.user_attrs.get(RETRIED, ()))
        self._trials = {trial.number: trial for trial in as_trials(study, all_trials)}
        recipes = [trial.recipe for trial in self._trials.values()]
        self._draws = Draws(study, space, crashes, self.seed, recipes, interrupted)
        self._paused |= {t.number: optuna.Trial(study, t._trial_id) for t in left_open if t.number not in interrupted}
        self.crashes.read(self._trials.values())
        for trial in [*self.prior_trials(), *self._trials.values()]:
            self._note(trial)
        self._waiting: set[int] = set()  # numbers of trials that are written already, to be started later
        self.save()
        self._hold_waiting()

    def _hold_waiting(self) -> None:
        """Write nothing more of the trials whose values wait to be tried, until they are started."""
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        self._waiting |= {trial.number for trial in waiting}

    def _close_left_open(self) -> None:
        """Give the trials that a process left open when it died the states that they have in truth."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state != TrialState.RUNNING:
                continue
            if REFUSED in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.PRUNED)
            elif trial.user_attrs.get("state", "interrupted") not in ("interrupted", "paused"):
                self.study._storage.set_trial_user_attr(trial._trial_id, "state", "interrupted")

    @property
    def num_started(self) -> int:
        """The number of trials that were ever started, interrupted ones included; one that was retried counts once."""
        return self._num_started

    @contextmanager
    def event(self) -> Iterator[None]:
        """Write all changes within the block in one transaction, at its end; not after an error."""
        with self.unwritten():
            yield
        if self._depth == 0:
            self.save()

    @contextmanager
    def unwritten(self) -> Iterator[None]:
        """Leave the changes within the block to the next event, or to `save`."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def save(self) -> None:
        """Write what changed since the last time into the database."""
        storage = self.study._storage
        if isinstance(storage, StudyStorage):
            storage.save(self._num_written, but=self._waiting)

    def look(self) -> None:
        """Read the database, which raises an error where it was moved, removed or deleted."""
        storage = self.study._storage
        if isinstance(storage, StudyStorage):
            storage.check_database()

    @property
    def num_live(self) -> int:
        """The number of trials that run now."""
        return len(self._asked)

    def is_live(self, number: int) -> bool:
        """Whether the trial runs now."""
        return number in self._asked

    def live_trials(self) -> list[Trial]:
        """The trials that run now, as they are known."""
        return [self._trials[number] for number in self._asked]

    def num_to_start(self, num_trials: int) -> int:
        """The number of trials to resume or to start until there are `num_trials`, or no recipe is left to try."""
        new = 0 if self.is_exhausted or self.is_converged else max(0, num_trials - self.num_started)
        return len(self._draws.interrupted) + new

    def num_left(self, num_trials: int) -> int:
        """The same with the paused trials, of which only the scheduler knows whether they go on."""
        return self.num_to_start(num_trials) + self.num_paused

    @property
    def has_interrupted(self) -> bool:
        """Whether there is a trial to resume."""
        return bool(self._draws.interrupted)

    @property
    def has_paused(self) -> bool:
        """Whether a trial waits to be taken up again and is not prepared."""
        return bool(self._paused)

    @property
    def num_paused(self) -> int:
        """The number of trials that wait to be taken up again, prepared ones included."""
        with self._moving:
            return len(self._paused) + self.num_prepared_paused

    @property
    def num_prepared_paused(self) -> int:
        """The number of paused trials among those that are prepared."""
        return sum(each.origin == "paused" for each in list(self._prepared))

    def paused_trials(self) -> list[Trial]:
        """The trials that wait to be taken up again, by number, without those that are prepared."""
        return [self._trials[number] for number in sorted(self._paused)]

    @property
    def is_exhausted(self) -> bool:
        """Whether no recipe of the space is left to try, as far as random draws can tell."""
        return self._draws.is_exhausted

    @property
    def is_converged(self) -> bool:
        """Whether the search has ended because no recipe was expected to be worth another training."""
        return self.ends_when_converged and bool(self.study.user_attrs.get(CONVERGED) == self.num_started)

    @property
    def expected_gain(self) -> float | None:
        """The score that another training is expected to gain; None where the search does not foresee it."""
        return self.forecast.expected_gain if self.forecast is not None else None

    @property
    def is_shown(self) -> bool:
        """Whether MLflow has the end of every trial."""
        return bool(self.study.user_attrs.get(NUM_SHOWN) == self.num_started)

    def set_shown(self) -> None:
        """Note that MLflow has the end of every trial."""
        self.set_attribute(NUM_SHOWN, self.num_started)

    def check_unchanged(self, what: Literal["data", "weights"], digest: str | dict[str, str]) -> None:
        """Store the digest of the files at the start of a search; a UserError if the search started with others."""
        if self.study.user_attrs.get(what, digest) != digest:
            raise UserError(
                f"The search {self.name} was started with other {what}, so its scores cannot be compared; "
                f"restore those files, or start a new search with --name."
            )
        self.set_attribute(what, digest)

    @property
    def weights(self) -> dict[str, str]:
        """The digests of the weight files that trials start from, by `model/weights`."""
        return dict(self.study.user_attrs.get("weights", {}))

    def remember_versions(self, versions: Mapping[str, str]) -> dict[str, str]:
        """The package versions that the search started with: these, if it starts now."""
        if "versions" not in self.study.user_attrs:
            self.set_attribute("versions", dict(versions))
        return dict(self.study.user_attrs["versions"])

    def trials(self) -> list[Trial]:
        """All trials that were started, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    def prior_trials(self) -> list[Trial]:
        """The results of an older search that this one learns from (`--extend`); they are not its trials."""
        trials = self.study.get_trials(deepcopy=False)
        return [as_trial(self.name, t, False, self.goal) for t in trials if PRIOR in t.user_attrs]

    @_written
    def add_finished(self, results: Iterable[FrozenTrial]) -> None:
        """Add Optuna's trials that were trained elsewhere, each with the attribute PRIOR."""
        self.study.add_trials(results)
        self._num_written = len(self.study.get_trials(deepcopy=False))
        for trial in self.prior_trials():
            self._note(trial)

    @property
    def extension(self) -> Extension | None:
        """The older search that this one extends, with the number of results taken over; None for most searches."""
        return extension_of(self.study)

    def set_extension(self, extension: Extension) -> None:
        """Note that every result that fits has been taken over."""
        self.set_attribute("extension", asdict(extension))

    @_written
    def set_attribute(self, name: str, value: Any) -> None:  # noqa: ANN401 - anything JSON holds
        """Set an attribute of the search as a whole, and write it."""
        self.study.set_user_attr(name, value)

    @_written
    def start_trial(self) -> Trial:
        """The next trial: the first of those prepared, or else what `prepare` gives."""
        if not self._prepared:
            self.prepare()
        prepared = self._prepared.popleft()
        number = prepared.trial.number
        trial = replace(prepared.trial, state="running")
        prepared.asked.set_user_attr("state", "running")
        self._num_written = max(self._num_written, number + 1)
        self._waiting.discard(number)
        self._num_started += prepared.origin == "new"
        self._trials[number], self._asked[number] = trial, prepared.asked
        self._keep_end()
        self._note(trial)
        return trial

    @property
    def num_prepared(self) -> int:
        """The number of trials that `start_trial` starts without choosing values."""
        return len(self._prepared)

    def warm_up(self, num_left: int) -> None:
        """Import what the choices of the trials that are left need, if they need more than the first ones."""
        num_to_choose = num_left - self.num_prepared
        if self.forecast is not None and num_to_choose > 0:
            self.forecast.warm_up(num_to_choose)

    @property
    def is_next_paused(self) -> bool:
        """Whether `start_trial` takes up a paused trial, which is prepared."""
        return bool(self._prepared) and self._prepared[0].origin == "paused"

    def prepare_paused(self, number: int) -> None:
        """Make a paused trial the next one, unless it was given up meanwhile."""
        with self._moving:
            asked = self._paused.pop(number, None)
            if asked is not None:
                self._prepared.append(_Prepared(asked, self._trials[number], "paused"))

    def prepare(self) -> None:
        """Choose the next trial: an interrupted one, or one with the values of the next baseline or of the sampler.

        Raises a NoTrialLeftError if no recipe of the space is left to try, or none that is worth it.
        """
        if self.forecast is not None:
            self.forecast.fit()
        try:
            if self._has_converged and not self.has_interrupted:
                raise NoTrialLeftError
            draw = self._draws.next()
        except NoTrialLeftError:
            self._keep_end()
            raise
        except UserError:
            # The draw at which the space failed is written, and so are the trials that were prepared before it.
            all_trials = self.study.get_trials(deepcopy=False)
            self._num_written = len(all_trials)
            self._waiting -= {trial.number for trial in all_trials if trial.state.is_finished()}
            self.save()
            raise
        trial = self._trials.get(draw.asked.number) or self._describe(draw.asked, draw.recipe)
        self._note(trial)
        self._prepared.append(_Prepared(draw.asked, trial, "new" if draw.is_new else "interrupted"))

    @property
    def _has_converged(self) -> bool:
        return self.ends_when_converged and self.forecast is not None and self.forecast.has_converged

    def _keep_end(self) -> None:
        """Note that no recipe is left, once those that were prepared are started: an interruption loses them.

        The next event writes it; this may run in the thread that prepares, which writes nothing.
        """
        if self._prepared:
            return
        if self._draws.is_exhausted:
            self.study.set_user_attr(EXHAUSTED, True)
        if self._has_converged:
            self.study.set_user_attr(CONVERGED, self.num_started)

    def _describe(self, optuna_trial: optuna.Trial, recipe: Recipe) -> Trial:
        """The trial of a recipe that was drawn."""
        optuna_trial.set_user_attr("recipe", recipe.model_dump(mode="json"))
        return Trial(
            search=self.name,
            number=optuna_trial.number,
            state="running",
            recipe=recipe,
            params=optuna_trial.params,
            is_baseline=self.is_baseline(optuna_trial.number),
            goal=self.goal,
            ranges=optuna_trial.distributions,
        )

    def retry_failed(self) -> int:
        """Give the next trials the values of those that failed, except baselines; returns their number."""
        retried = list(self.study.user_attrs.get(RETRIED, ()))
        failed = [t for t in self.trials() if t.state == "failed" and not t.is_baseline and t.number not in retried]
        for trial in failed:
            self.study.enqueue_trial(dict(trial.params))
        self._num_started -= len(failed)
        self._num_written = len(self.study.get_trials(deepcopy=False))
        self.study.set_user_attr(RETRIED, [*retried, *(trial.number for trial in failed)])
        if failed:  # and whatever is like them
            self._draws.is_exhausted = False
            self.study.set_user_attr(EXHAUSTED, False)
        self.save()
        self._hold_waiting()
        return len(failed)

    def is_baseline(self, number: int) -> bool:
        """Whether the trial is one of the first, which are the space's baselines."""
        return number < len(self.space.baselines)

    @_written
    def add_epoch(self, number: int, metrics: Mapping[str, float]) -> Trial:
        """Note an epoch of a running trial; it replaces the one that was recorded before an interruption."""
        epoch, curve = int(metrics["epoch"]), self._trials[number].curve
        attributes = self.study._storage.get_trial(self._asked[number]._trial_id).user_attrs
        for name, value in changed_epochs(attributes, epoch, dict(metrics)).items():
            self._asked[number].set_user_attr(name, value)
        trial = self._change(number, curve=[*curve[: epoch - 1], dict(metrics)])
        score = trial.score
        assert score is not None
        if self.goal.minimize:
            return trial  # Optuna stores intermediate values for a single objective only
        # `Trial.report` would ignore a step that is stored already, but an epoch that was trained again counts. Optuna
        # takes the last of these values for a pruned trial's, so it must be the score.
        self.study._storage.set_trial_intermediate_value(self._asked[number]._trial_id, epoch, score)
        return trial

    def has_later_epoch(self, number: int, metrics: Mapping[str, float]) -> bool:
        """Whether this epoch, with this score, and later ones are recorded: then a resumed trial repeats it."""
        curve = self._trials[number].curve
        epoch = int(metrics["epoch"])
        name = metric_name(self.goal.score)
        return epoch < len(curve) and curve[epoch - 1][name] == metrics[name]

    @_written
    def add_facts(self, number: int, facts: Mapping[str, Any]) -> Trial:
        """Write facts about a running trial."""
        return self._change(number, facts=with_facts(self._trials[number].facts, facts))

    def set_mlflow_run(self, number: int, run_id: str) -> None:
        """Remember the MLflow run that shows a running trial; of one that has ended meanwhile it is noted elsewhere.

        The next event writes it.
        """
        if self.is_live(number):
            self._change(number, mlflow_run_id=run_id)

    @_written
    def finish_trial(self, number: int, state: State, error: str | None = None) -> Trial:
        """Close a trial in its final state; Optuna gets its values, or the last epoch's score if it was pruned."""
        trial = self._change(number, error=error, state=state)
        if state == "failed":
            self.crashes.read(self._trials.values())
            rule = self.crashes.rule_for(trial.params)
            trial = self.add_facts(number, {LEFT_OUT: str(rule)}) if rule else trial
        optuna_state = OPTUNA_STATES[state]
        for name, share in self.constraints(trial).items():
            self._asked[number].set_constraint(name, share)
        values = self.values(trial) if optuna_state == TrialState.COMPLETE else None
        self.study.tell(self._asked[number], values, state=optuna_state)
        del self._asked[number]
        return trial

    @_written
    def put_back(self, number: int, error: str) -> Trial:
        """Leave a trial that the machine ended to be resumed."""
        trial = self._change(number, state="interrupted", error=error)
        del self._asked[number]
        self._draws.interrupted.append(number)
        return trial

    @_written
    def pause_trial(self, number: int) -> Trial:
        """Leave a running trial to be taken up again, or to be pruned."""
        trial = self._change(number, state="paused", error=None)
        self._paused[number] = self._asked.pop(number)
        return trial

    @_written
    def prune_paused(self, number: int, facts: Mapping[str, Any]) -> Trial | None:
        """Close a paused trial as pruned, with the last epoch's score in Optuna; None if it is prepared meanwhile."""
        asked = self._paused.pop(number, None)
        if asked is None:
            return None
        self._asked[number] = asked
        self.add_facts(number, facts)
        return self.finish_trial(number, "pruned")

    def values(self, trial: Trial) -> list[float]:
        """Optuna's values of a trial that is over: its score, and its cost where the search minimizes one."""
        assert trial.score is not None
        minimize = self.goal.minimize
        return [trial.score, *([self._cost(trial, minimize)] if minimize else [])]

    def constraints(self, trial: Trial) -> dict[CostName, float]:
        """The share by which a trial exceeds each limit, negative below it; Optuna's samplers learn from both."""
        return {name: self._cost(trial, name) / limit - 1 for name, limit in self.goal.limits.by_cost.items()}

    def _cost(self, trial: Trial, name: CostName) -> float:
        """The cost of the trial trained to its end, so that breaking down early does not look cheap.

        Where it is unknown, the highest cost of any trial.
        """
        cost = trial.cost_to_end(name)
        if cost is not None:
            return cost
        costs = [other.cost_to_end(name) for other in [*self.prior_trials(), *self._trials.values()]]
        return max((cost for cost in costs if cost is not None), default=UNKNOWN_COST)

    @_written
    def interrupt_all(self) -> list[Trial]:
        """Mark running trials as interrupted: Optuna keeps them as RUNNING, and a resumed search continues them.

        Paused ones stay paused.
        """
        interrupted = [self._change(number, state="interrupted") for number in self._asked]
        self._asked.clear()
        self._draws.interrupted[:0] = [each.trial.number for each in self._prepared if each.origin == "interrupted"]
        self._paused |= {each.trial.number: each.asked for each in self._prepared if each.origin == "paused"}
        self._prepared.clear()
        return interrupted

    def _change(self, number: int, **fields: Any) -> Trial:  # noqa: ANN401 - of any field
        """Change fields of a running trial, and its user attributes of the same names; the curve has others."""
        trial = self._trials[number]
        for name, value in fields.items():
            if name != "curve" and value != getattr(trial, name):
                self._asked[number].set_user_attr(name, value)
        self._trials[number] = replace(trial, **fields)
        self._note(self._trials[number])
        return self._trials[number]

    def _note(self, trial: Trial) -> None:
        if self.forecast is not None:
            self.forecast.note(trial)


def _is_no_trial(trial: FrozenTrial) -> bool:
    """Whether it was never to be trained: the result of an older search, or a draw that was refused."""
    return bool({PRIOR, REFUSED} & trial.user_attrs.keys())
