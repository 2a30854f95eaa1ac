"""The record of a search: its Optuna study in the store. Ray executes, MLflow shows; this is what counts.

A trial's state, recipe and learning curve are user attributes of its Optuna trial, so that optuna-dashboard and the
`optuna` command see them too. Every change is written before anybody is told of it.
"""

import difflib
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from cifar_tune.errors import UserError
from cifar_tune.images import NUM_CLASSES
from cifar_tune.recipe import Recipe, nearest
from cifar_tune.search.space import Space
from cifar_tune.store import Store

State = Literal["running", "completed", "stopped early", "pruned", "diverged", "out of memory", "failed", "interrupted"]

COMPLETE_STATES: tuple[State, ...] = ("completed", "stopped early")

OPTUNA_STATES: dict[State, TrialState] = {
    "completed": TrialState.COMPLETE,
    "stopped early": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.COMPLETE,
    "out of memory": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Trial:
    """What is known of one trial of a search.

    `params` are the sampled values by name, `curve` one document of EpochMetrics per epoch, `facts` what the worker
    said of itself (parameters, threads, device, where it diverged, peak memory).
    """

    search: str
    number: int
    state: State
    recipe: Recipe
    params: Mapping[str, Any]
    is_baseline: bool
    curve: Sequence[Mapping[str, float]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    mlflow_run_id: str | None = None

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""
        return len(self.curve)

    @property
    def seconds(self) -> float:
        """Of training and validation, over all its epochs."""
        return sum(epoch["seconds"] for epoch in self.curve)

    @property
    def accuracies(self) -> list[float]:
        """The validation accuracy after each epoch."""
        return [epoch["val_accuracy"] for epoch in self.curve]

    @property
    def val_accuracy(self) -> float | None:
        """The score: of the epoch that counts, chance where the run broke down, None where there is none."""
        if self.state in ("diverged", "out of memory"):
            return 1 / NUM_CLASSES[self.recipe.dataset]
        if not self.curve or self.state == "failed":
            return None
        return self.accuracies[self.recipe.early_stopping.counted(self.accuracies)]

    @property
    def is_complete(self) -> bool:
        """Whether it was trained to the end that its recipe means it to have."""
        return self.state in COMPLETE_STATES

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in OPTUNA_STATES


class Record:
    """One search's study, open for reading and writing; `open_record` opens it."""

    def __init__(self, study: optuna.Study, space: Space) -> None:
        self.study = study
        self.space = space
        self.name = study.study_name
        self.id = str(study.user_attrs["id"])
        self._live: dict[int, tuple[optuna.Trial, Trial]] = {}
        self._interrupted = [t.number for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]

    @property
    def num_started(self) -> int:
        """Trials that were ever started, interrupted ones too."""
        return sum(t.state != TrialState.WAITING for t in self.study.get_trials(deepcopy=False))

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
        return read_trials(self.study)

    def start_trial(self) -> Trial:
        """The next trial: an interrupted one, or a new one that the sampler (for a baseline, the space file) gives."""
        if self._interrupted:
            number = self._interrupted.pop(0)
            optuna_trial = _reopen(self.study, number)
        else:
            optuna_trial = self.study.ask()
        try:
            trial = self._sample(optuna_trial)
        except UserError:  # or the same values would stop the search again each time it is resumed
            self.study.tell(optuna_trial, state=TrialState.FAIL)
            raise
        self._live[trial.number] = optuna_trial, trial
        return trial

    def _sample(self, optuna_trial: optuna.Trial) -> Trial:
        """Ask the space for the trial's recipe; one that was stopped half-way through gets the same values again."""
        recipe = self.space.sample(optuna_trial)
        number, baselines = optuna_trial.number, self.space.baselines
        is_baseline = number < len(baselines)
        if is_baseline and recipe != baselines[number]:
            raise RuntimeError(f"Trial {number} must be a baseline, but is {recipe}.")
        attributes = optuna_trial.user_attrs
        if "recipe" not in attributes:
            optuna_trial.set_user_attr("recipe", recipe.model_dump(mode="json"))
        optuna_trial.set_user_attr("state", "running")
        return Trial(
            search=self.name,
            number=number,
            state="running",
            recipe=recipe,
            params=optuna_trial.params,
            is_baseline=is_baseline,
            curve=attributes.get("curve", ()),
            facts=attributes.get("facts", {}),
            mlflow_run_id=attributes.get("mlflow_run_id"),
        )

    def add_epoch(self, number: int, metrics: Mapping[str, float]) -> Trial:
        """Write an epoch of a running trial; one that was recorded before an interruption is replaced."""
        optuna_trial, trial = self._live[number]
        epoch = int(metrics["epoch"])
        trial = replace(trial, curve=[*trial.curve[: epoch - 1], dict(metrics)])
        optuna_trial.set_user_attr("curve", trial.curve)
        score = trial.val_accuracy
        assert score is not None
        # `Trial.report` ignores a step that it has; an epoch that was trained again counts. Of a pruned trial Optuna
        # takes the last of these values, which must be the score.
        self.study._storage.set_trial_intermediate_value(optuna_trial._trial_id, epoch, score)
        self._live[number] = optuna_trial, trial
        return trial

    def has_later_epoch(self, number: int, metrics: Mapping[str, float]) -> bool:
        """Whether this epoch is recorded already, with this score, and later ones too: a resumed trial repeats it."""
        curve = self._live[number][1].curve
        epoch = int(metrics["epoch"])
        return epoch < len(curve) and curve[epoch - 1]["val_accuracy"] == metrics["val_accuracy"]

    def add_facts(self, number: int, facts: Mapping[str, Any]) -> Trial:
        """Write what the worker says of the run itself."""
        optuna_trial, trial = self._live[number]
        if {**trial.facts, **facts} == trial.facts:
            return trial
        trial = replace(trial, facts={**trial.facts, **facts})
        optuna_trial.set_user_attr("facts", dict(trial.facts))
        self._live[number] = optuna_trial, trial
        return trial

    def set_mlflow_run(self, number: int, run_id: str) -> None:
        """Remember the MLflow run that shows the trial."""
        optuna_trial, trial = self._live[number]
        optuna_trial.set_user_attr("mlflow_run_id", run_id)
        self._live[number] = optuna_trial, replace(trial, mlflow_run_id=run_id)

    def finish_trial(self, number: int, state: State, error: str | None = None) -> Trial:
        """Close a trial as what it was; Optuna is told its score, and of a pruned one the last epoch's."""
        optuna_trial, trial = self._live[number]
        trial = replace(trial, state=state, error=error)
        optuna_trial.set_user_attr("state", state)
        if error:
            optuna_trial.set_user_attr("error", error)
        optuna_state = OPTUNA_STATES[state]
        score = trial.val_accuracy if optuna_state == TrialState.COMPLETE else None
        self.study.tell(optuna_trial, score, state=optuna_state)
        del self._live[number]
        return trial

    def interrupt_all(self) -> list[Trial]:
        """Mark what still runs as interrupted: it stays RUNNING in Optuna and goes on when the search is resumed."""
        stopped = []
        for optuna_trial, trial in self._live.values():
            optuna_trial.set_user_attr("state", "interrupted")
            stopped.append(replace(trial, state="interrupted"))
        self._live.clear()
        return stopped


def open_record(store: Store, name: str, space: Space, seed: int) -> Record:
    """Open a search's record, or start one; a UserError where the name stands for another search already."""
    study = optuna.create_study(storage=store.optuna_url, study_name=name, direction="maximize", load_if_exists=True)
    identity = {"space": space.source, "settings": dict(space.settings), "seed": seed}
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("id", uuid.uuid4().hex)
        study.set_user_attr("num_baselines", len(space.baselines))
        study.set_user_attr("identity", identity)
    elif known != identity:
        raise UserError(
            f"The search {name} was started with {_difference(known, identity)}; "
            f"undo that to go on with it, or start another with --name."
        )
    for baseline in space.baselines:
        study.enqueue_trial(space.baseline_trial(baseline).params, skip_if_exists=True)
    study.sampler = _sampler(seed + len(study.get_trials(deepcopy=False)))
    return Record(study, space)


def read_record(store: Store, names: Sequence[str] = ()) -> dict[str, list[Trial]]:
    """The trials of the named searches, or of all in the store, by search; a UserError for an unknown name."""
    known: list[str] = []
    if (store.root / "optuna.db").exists():
        storage = optuna.storages.RDBStorage(store.optuna_url)
        known = optuna.get_all_study_names(storage)
    if not known:
        raise UserError(f"There is no search in {store.root}; start one with `cifar-tune run`, or name its --store.")
    for name in names:
        if name not in known:
            raise UserError(f"There is no search {name!r} in {store.root}; {nearest(name, known)}.")
    trials = {name: read_trials(optuna.load_study(study_name=name, storage=storage)) for name in names or known}
    return {name: [_as_seen(store, trial) for trial in found] for name, found in trials.items()}


def record_id(store: Store, name: str) -> str:
    """What MLflow knows the search by."""
    return str(optuna.load_study(study_name=name, storage=store.optuna_url).user_attrs["id"])


def delete_record(store: Store, name: str) -> None:
    """Remove the study of a search."""
    optuna.delete_study(study_name=name, storage=store.optuna_url)


def read_trials(study: optuna.Study) -> list[Trial]:
    """The trials that were started, by number."""
    num_baselines = study.user_attrs.get("num_baselines", 1)
    return [
        Trial(
            search=study.study_name,
            number=frozen.number,
            state=frozen.user_attrs["state"],
            recipe=Recipe.model_validate(frozen.user_attrs["recipe"]),
            params=frozen.params,
            is_baseline=frozen.number < num_baselines,
            curve=frozen.user_attrs.get("curve", ()),
            facts=frozen.user_attrs.get("facts", {}),
            error=frozen.user_attrs.get("error"),
            mlflow_run_id=frozen.user_attrs.get("mlflow_run_id"),
        )
        for frozen in study.get_trials(deepcopy=False)
        if "recipe" in frozen.user_attrs and "state" in frozen.user_attrs
    ]


def _as_seen(store: Store, trial: Trial) -> Trial:
    """A trial that was left running by a process that is gone is interrupted."""
    if trial.state == "running" and not store.is_running(trial.search):
        return replace(trial, state="interrupted")
    return trial


def _reopen(study: optuna.Study, number: int) -> optuna.Trial:
    return optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    """TPE over each branch of a conditional space by itself (`group`), the parameters of a branch together."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


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
