"""`--extend OLD`: what a new search takes over from an older one that had another space.

The results of the old search that the new space could have given are copied into the new study, so that its sampler and
its scheduler learn from them. The copies are not trials of the new search, and no report shows them as such.
"""

from collections.abc import Sequence
from dataclasses import replace

from optuna import Study, load_study
from optuna.trial import FrozenTrial, TrialState, create_trial

from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.draws import REFUSED
from cifar_tune.search.record import Record
from cifar_tune.search.space import TASK_FIELDS
from cifar_tune.store import Store
from cifar_tune.trials.goal import Goal
from cifar_tune.trials.reading import PRIOR, Extension, read_record
from cifar_tune.trials.storage import open_storage
from cifar_tune.trials.trial import Trial, as_trial, is_of_curve

KEPT = ("recipe", "state", "facts")  # the user attributes of a result that are copied
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def check_extends(record: Record, store: Store, old: str) -> None:
    """Raise a UserError if the search started without `old`, or if there is no search `old`."""
    extension = record.extension
    if extension is None and record.num_started:
        raise UserError(
            f"The search {record.name} was started without --extend; leave it out, or start a new search with --name."
        )
    if extension is not None and extension.search != old:
        raise UserError(
            f"The search {record.name} was started with --extend {extension.search}; use the same, or leave it out."
        )
    if extension is None:
        read_record(store, [old])


def extend(record: Record, store: Store, old: str) -> Extension:
    """Copy the results of `old` that fit into a search that starts; one that continues has them, even if `old` is gone.

    Copies are numbered after the baselines, so the search's own trials come after them.
    """
    if record.extension is None:
        study = load_study(study_name=old, storage=open_storage(store))
        trials = study.get_trials(deepcopy=False)
        results = [trial for trial in trials if trial.state in FINISHED and REFUSED not in trial.user_attrs]
        _check_comparable(record, study, results)
        copies = [copy for copy in (_copy(record, old, result) for result in results) if copy]
        copied = [trial.user_attrs.get(PRIOR) for trial in record.study.get_trials(deepcopy=False)]
        record.add_finished(copy for copy in copies if copy.user_attrs[PRIOR] not in copied)
        record.set_extension(Extension(old, len(copies), len(results)))
    assert record.extension is not None
    return record.extension


def _check_comparable(record: Record, old: Study, results: Sequence[FrozenTrial]) -> None:
    """Raise a UserError if the two searches differ in their score, task, images or weights."""
    consequence = f"so scores of {old.study_name} cannot be compared; leave out --extend"
    score, their_score = record.goal.score, Goal.model_validate(old.user_attrs.get("goal", {})).score
    if their_score != score:
        raise UserError(f"The score is {score} here but was {their_score} there, {consequence}.")
    ours = record.space.baselines[0].flatten()
    for result in results[:1]:  # all trials of a search have the same task
        theirs = _recipe(result).flatten()
        for name in TASK_FIELDS:
            if theirs[name] != ours[name]:
                raise UserError(f"{name} is {ours[name]} here but was {theirs[name]} there, {consequence}.")
    if old.user_attrs.get("data") != record.study.user_attrs.get("data"):
        raise UserError(f"The images are not the same as in {old.study_name}, {consequence}.")
    weights = old.user_attrs.get("weights", {})
    for name, digest in record.weights.items():
        if weights.get(name, digest) != digest:
            raise UserError(f"The weights {name} are not the same file as in {old.study_name}, {consequence}.")


def _copy(record: Record, old: str, result: FrozenTrial) -> FrozenTrial | None:
    """A result as a trial of the new space; None where that space cannot give its recipe.

    A result that `old` took over itself keeps the search that it came from. Optuna gets values and constraints by the
    new search's objectives and limits.
    """
    try:
        trial = record.space.baseline_trial(_recipe(result))
    except UserError:
        return None
    origin = result.user_attrs.get(PRIOR, {"search": old, "number": result.number})
    original = as_trial(old, result, False, record.goal)
    scores = {} if record.space.search.minimize else _scores(original)
    values = record.values(original) if result.state == TrialState.COMPLETE else list(scores.values())[-1:]
    kept = {name: value for name, value in result.user_attrs.items() if name in KEPT or is_of_curve(name)}
    copy = create_trial(
        state=result.state,
        values=values or None,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={PRIOR: origin, **kept},
        intermediate_values=scores,
        constraints={str(name): share for name, share in record.constraints(original).items()},
    )
    copy.datetime_start, copy.datetime_complete = result.datetime_start, result.datetime_complete
    return copy


def _scores(trial: Trial) -> dict[int, float]:
    """The score after each epoch, by epoch."""
    so_far = [replace(trial, state="running", curve=trial.curve[:n]) for n in range(1, trial.epochs + 1)]
    return {each.epochs: each.score for each in so_far if each.score is not None}


def _recipe(result: FrozenTrial) -> Recipe:
    return Recipe.model_validate(result.user_attrs["recipe"])
