"""The record of a search: its Optuna study in the store. Ray executes, MLflow shows; this is what counts.

A trial's state, recipe and learning curve are user attributes of its Optuna trial, so that optuna-dashboard and the
`optuna` command see them too. Every change is written before anybody is told of it.
"""

import difflib
import random
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import TrialState

from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.limits import draw_within, excess
from cifar_tune.search.space import Space
from cifar_tune.store import Store
from cifar_tune.trials.facts import with_facts
from cifar_tune.trials.goal import CostName
from cifar_tune.trials.reading import PRIOR, Extension, as_trials, extension_of
from cifar_tune.trials.storage import open_storage
from cifar_tune.trials.trial import OPTUNA_STATES, State, Trial, as_trial

if TYPE_CHECKING:
    from cifar_tune.search.forecast import Forecast

REFUSED = "over_limits"  # of a recipe that was not trained: by what share of each limit its network was too large
NUM_DRAWS = 20  # of the sampler, in vain, before a recipe within the limits is sought at random
UNKNOWN_COST = 1e5  # of a trial that broke down before any had a cost: in each of them more than is usual


class Record:
    """One search's study, open for reading and writing; `open_record` opens it."""

    def __init__(self, study: optuna.Study, space: Space, forecast: "Forecast") -> None:
        self.study = study
        self.space = space
        self.forecast = forecast
        self.goal = space.search.goal
        self.name = study.study_name
        self.id = str(study.user_attrs["id"])
        self.seed = int(study.user_attrs["identity"]["seed"])
        self._live: dict[int, Trial] = {}
        self._asked: dict[int, optuna.Trial] = {}  # the same trials, as Optuna's sampler gave them
        for trial in study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING and REFUSED in trial.user_attrs:  # killed before it was closed
                study.tell(trial.number, state=TrialState.PRUNED)
        left_open = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
        self._interrupted = [t.number for t in left_open]
        for trial in left_open:
            if trial.user_attrs.get("state", "interrupted") != "interrupted":  # its process was killed
                study._storage.set_trial_user_attr(trial._trial_id, "state", "interrupted")

    @property
    def num_started(self) -> int:
        """Trials that were ever started, interrupted ones too."""
        found = self.study.get_trials(deepcopy=False)
        return sum(t.state != TrialState.WAITING and not {PRIOR, REFUSED} & t.user_attrs.keys() for t in found)

    @property
    def num_live(self) -> int:
        """Trials that run now."""
        return len(self._live)

    def num_left(self, num_trials: int) -> int:
        """Trials still to be resumed or started until there are `num_trials`."""
        return len(self._interrupted) + max(0, num_trials - self.num_started)

    @property
    def is_shown(self) -> bool:
        """Whether MLflow was told of the end of every trial there is."""
        return bool(self.study.user_attrs.get("num_shown") == self.num_started)

    def set_shown(self) -> None:
        """MLflow shows all there is."""
        self.study.set_user_attr("num_shown", self.num_started)

    def check_unchanged(self, what: Literal["data", "weights"], digest: str | dict[str, str]) -> None:
        """Remember what the search was begun with; a UserError for other files under the same name."""
        if self.study.user_attrs.get(what, digest) != digest:
            raise UserError(
                f"The search {self.name} was begun with other {what}, so its scores would not compare; "
                f"bring back those files, or start another search with --name."
            )
        self.study.set_user_attr(what, digest)

    @property
    def weights(self) -> dict[str, str]:
        """The digests of the files that the search starts from, by `model/weights`."""
        return dict(self.study.user_attrs.get("weights", {}))

    def remember_versions(self, versions: Mapping[str, str]) -> dict[str, str]:
        """The package versions that the search began with, which are these if it begins now."""
        if "versions" not in self.study.user_attrs:
            self.study.set_user_attr("versions", dict(versions))
        return dict(self.study.user_attrs["versions"])

    def trials(self) -> list[Trial]:
        """All trials that were started, by number."""
        return as_trials(self.study, self.study.get_trials(deepcopy=False))

    def prior_trials(self) -> list[Trial]:
        """The results of another search that this one was given to learn from; they are no trials of it."""
        found = self.study.get_trials(deepcopy=False)
        return [as_trial(self.name, t, False, self.goal) for t in found if PRIOR in t.user_attrs]

    @property
    def extension(self) -> Extension | None:
        """What the search was seeded with."""
        return extension_of(self.study)

    def set_extension(self, extension: Extension) -> None:
        """Every result that fits is there."""
        self.study.set_user_attr("extension", asdict(extension))

    def start_trial(self) -> Trial:
        """The next trial: an interrupted one, or a new one that the sampler (for a baseline, the space file) gives.

        What the sampler gives above a limit is no trial; another is drawn, in the end at random.
        """
        for num_refused in count():
            if num_refused == NUM_DRAWS:
                self._enqueue_within()
            optuna_trial = self._ask()
            recipe = self._sample(optuna_trial)
            if self._is_accepted(optuna_trial, recipe):
                break
        if "recipe" not in optuna_trial.user_attrs:
            optuna_trial.set_user_attr("recipe", recipe.model_dump(mode="json"))
        optuna_trial.set_user_attr("state", "running")
        trial = as_trial(self.name, optuna_trial, self._is_baseline(optuna_trial), self.goal)
        self._live[trial.number], self._asked[trial.number] = trial, optuna_trial
        return trial

    def _ask(self) -> optuna.Trial:
        if self._interrupted:
            return _reopen(self.study, self._interrupted.pop(0))
        return self.study.ask()

    def _enqueue_within(self) -> None:
        rng = random.Random(f"{self.seed} {len(self.study.get_trials(deepcopy=False))}")
        self.study.enqueue_trial(draw_within(self.space, rng).params)

    def _is_baseline(self, optuna_trial: optuna.Trial) -> bool:
        return optuna_trial.number < len(self.space.baselines)

    def _sample(self, optuna_trial: optuna.Trial) -> Recipe:
        """Ask the space for the trial's recipe; one that was stopped half-way through gets the same values again."""
        try:
            _ = optuna_trial.relative_params  # the sampler at work, whose own errors are not the space file's
            recipe = self.space.sample(optuna_trial)
        except UserError:  # or the same values would stop the search again each time it is resumed
            self.study.tell(optuna_trial, state=TrialState.FAIL)
            raise
        if self._is_baseline(optuna_trial) and recipe != self.space.baselines[optuna_trial.number]:
            raise RuntimeError(f"Trial {optuna_trial.number} must be a baseline, but is {recipe}.")
        return recipe

    def _is_accepted(self, optuna_trial: optuna.Trial, recipe: Recipe) -> bool:
        """Whether it is trained; what is not is closed here, and the sampler told by how much it was too large."""
        if self._is_baseline(optuna_trial) or "recipe" in optuna_trial.user_attrs:
            return True
        found = excess(recipe, self.goal.limits)
        if all(share <= 0 for share in found.values()):
            return True
        for name, share in found.items():
            optuna_trial.set_constraint(name, share)
        optuna_trial.set_user_attr(REFUSED, found)
        self.study.tell(optuna_trial, state=TrialState.PRUNED)
        return False

    def add_epoch(self, number: int, metrics: Mapping[str, float]) -> Trial:
        """Write an epoch of a running trial; one that was recorded before an interruption is replaced."""
        epoch = int(metrics["epoch"])
        trial = self._change(number, curve=[*self._live[number].curve[: epoch - 1], dict(metrics)])
        score = trial.val_accuracy
        assert score is not None
        if self.goal.minimize:
            return trial  # Optuna has intermediate values of one objective only
        # `Trial.report` ignores a step that it has; an epoch that was trained again counts. Of a pruned trial Optuna
        # takes the last of these values, which must be the score.
        self.study._storage.set_trial_intermediate_value(self._asked[number]._trial_id, epoch, score)
        return trial

    def has_later_epoch(self, number: int, metrics: Mapping[str, float]) -> bool:
        """Whether this epoch is recorded already, with this score, and later ones too: a resumed trial repeats it."""
        curve = self._live[number].curve
        epoch = int(metrics["epoch"])
        return epoch < len(curve) and curve[epoch - 1]["val_accuracy"] == metrics["val_accuracy"]

    def add_facts(self, number: int, facts: Mapping[str, Any]) -> Trial:
        """Write what the worker says of the run itself."""
        return self._change(number, facts=with_facts(self._live[number].facts, facts))

    def set_mlflow_run(self, number: int, run_id: str) -> None:
        """Remember the MLflow run that shows the trial."""
        self._change(number, mlflow_run_id=run_id)

    def finish_trial(self, number: int, state: State, error: str | None = None) -> Trial:
        """Close a trial as what it was; Optuna is told its values, and of a pruned one the last epoch's score."""
        trial = self._change(number, error=error, state=state)
        optuna_state = OPTUNA_STATES[state]
        for name, share in self.constraints(trial).items():
            self._asked[number].set_constraint(name, share)
        values = self.values(trial) if optuna_state == TrialState.COMPLETE else None
        self.study.tell(self._asked[number], values, state=optuna_state)
        del self._live[number], self._asked[number]
        return trial

    def values(self, trial: Trial) -> list[float]:
        """What Optuna is told of a trial that is over: its score, and what it cost where that is to be small."""
        assert trial.val_accuracy is not None
        minimize = self.goal.minimize
        return [trial.val_accuracy, *([self._told_cost(trial, minimize)] if minimize else [])]

    def constraints(self, trial: Trial) -> dict[CostName, float]:
        """By what share of each limit it lies above it; below it where that is negative. Optuna's models learn both."""
        return {name: self._told_cost(trial, name) / limit - 1 for name, limit in self.goal.limits.given.items()}

    def _told_cost(self, trial: Trial, name: CostName) -> float:
        """To the trial's end, or it would pay to break down at once; the worst there has been where it is unknown."""
        known = trial.cost_to_end(name)
        if known is not None:
            return known
        costs = [other.cost_to_end(name) for other in [*self.prior_trials(), *self.trials()]]
        return max((cost for cost in costs if cost is not None), default=UNKNOWN_COST)

    def interrupt_all(self) -> list[Trial]:
        """Mark what still runs as interrupted: it stays RUNNING in Optuna and goes on when the search is resumed."""
        stopped = [self._change(number, state="interrupted") for number in self._live]
        self._live.clear()
        self._asked.clear()
        return stopped

    def _change(self, number: int, **fields: Any) -> Trial:  # noqa: ANN401 - of any field
        """Change fields of a running trial, and its user attributes of the same names."""
        trial = self._live[number]
        for name, value in fields.items():
            if value != getattr(trial, name):
                self._asked[number].set_user_attr(name, value)
        self._live[number] = replace(trial, **fields)
        return self._live[number]


def open_record(store: Store, name: str, space: Space, seed: int) -> Record:
    """Open a search's record, or start one; a UserError where the name stands for another search already."""
    return open_record_in(open_storage(store), name, space, seed)


def open_record_in(storage: optuna.storages.BaseStorage, name: str, space: Space, seed: int) -> Record:
    """The same in any storage of Optuna's: a simulation keeps its studies in memory."""
    from cifar_tune.search.forecast import Forecast  # with scipy.stats, a second that reports need not wait for
    from cifar_tune.search.samplers import build_sampler

    directions = [StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] if space.search.minimize else [])]
    study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    identity = {"space": space.source, "settings": dict(space.settings), "seed": seed}
    known = study.user_attrs.get("identity")
    if known is None:
        _name_objectives(study, space)
        study.set_user_attr("id", uuid.uuid4().hex)
        study.set_user_attr("num_baselines", len(space.baselines))
        study.set_user_attr("goal", space.search.goal.model_dump())
        study.set_user_attr("identity", identity)
    elif known != identity:
        raise UserError(
            f"The search {name} was started with {_difference(known, identity)}; "
            f"undo that to go on with it, or start another with --name."
        )
    for params in space.first_params():
        study.enqueue_trial(params, skip_if_exists=True)
    forecast = Forecast(study, space.ranges, space.search.scheduler.levels)
    study.sampler = build_sampler(space, forecast, seed + len(study.get_trials(deepcopy=False)))
    return Record(study, space, forecast)


def _name_objectives(study: optuna.Study, space: Space) -> None:
    """As Optuna's own tools show them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # there since 3.2
        study.set_metric_names(["val_accuracy", *([space.search.minimize] if space.search.minimize else [])])


def _reopen(study: optuna.Study, number: int) -> optuna.Trial:
    return optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def _difference(known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What stands otherwise in a search's identity, in half a sentence."""
    if known["settings"] != now["settings"]:
        said = " ".join(f"--set {name}={value}" for name, value in known["settings"].items())
        return said or "no --set"
    if known["seed"] != now["seed"]:
        return f"--seed {known['seed']}"
    lines = difflib.unified_diff(now["space"].splitlines(), known["space"].splitlines(), lineterm="", n=0)
    changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
    return f"another space file, which differs in {len(changed)} lines: " + " | ".join(changed[:6])
