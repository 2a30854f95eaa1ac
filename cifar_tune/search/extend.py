"""`--extend OLD`: what a new search takes over from an older one whose space was another.

Those results of the old search that the new space could have given become trials of the new study, so that its sampler
and its scheduler learn from them. They are copies, and no trials of the new search: nothing shows them as such.
"""

from collections.abc import Sequence
from dataclasses import replace

from optuna import Study, load_study
from optuna.trial import FrozenTrial, TrialState, create_trial

from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.record import REFUSED, Record
from cifar_tune.search.space import TASK_FIELDS
from cifar_tune.store import Store
from cifar_tune.trials.reading import PRIOR, Extension, read_record
from cifar_tune.trials.storage import open_storage
from cifar_tune.trials.trial import Trial, as_trial

KEPT = ("recipe", "state", "curve", "facts")  # of a result's user attributes
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def check_extends(record: Record, store: Store, old: str) -> None:
    """Raise a UserError where the search was begun otherwise, or there is no search `old`."""
    begun = record.extension
    if begun is None and record.num_started:
        raise UserError(f"The search {record.name} was begun without --extend; leave it out, or take another --name.")
    if begun is not None and begun.search != old:
        raise UserError(f"The search {record.name} was begun with --extend {begun.search}; say so, or leave it out.")
    if begun is None:
        read_record(store, [old])


def extend(record: Record, store: Store, old: str) -> Extension:
    """Give a search that begins the results of `old` that fit; one that goes on has them, though `old` be gone.

    They are numbered after the baselines, so that the trials of the search itself begin later.
    """
    if record.extension is None:
        study = load_study(study_name=old, storage=open_storage(store))
        found = study.get_trials(deepcopy=False)
        results = [trial for trial in found if trial.state in FINISHED and REFUSED not in trial.user_attrs]
        _check_comparable(record, study, results)
        fitting = [copy for copy in (_copy(record, old, result) for result in results) if copy]
        there = [trial.user_attrs.get(PRIOR) for trial in record.study.get_trials(deepcopy=False)]
        record.study.add_trials(copy for copy in fitting if copy.user_attrs[PRIOR] not in there)
        record.set_extension(Extension(old, len(fitting), len(results)))
    assert record.extension is not None
    return record.extension


def _check_comparable(record: Record, old: Study, results: Sequence[FrozenTrial]) -> None:
    """Raise a UserError where the two searches do not have the same task, images and weights."""
    said = f"so the scores of {old.study_name} do not compare; leave out --extend"
    ours = record.space.baselines[0].flatten()
    for result in results[:1]:  # all trials of a search have the same task
        theirs = _recipe(result).flatten()
        for name in TASK_FIELDS:
            if theirs[name] != ours[name]:
                raise UserError(f"{name} is {ours[name]} here and was {theirs[name]} there, {said}.")
    if old.user_attrs.get("data") != record.study.user_attrs.get("data"):
        raise UserError(f"The images are others than they were there, {said}.")
    before = old.user_attrs.get("weights", {})
    for name, digest in record.weights.items():
        if before.get(name, digest) != digest:
            raise UserError(f"The weights {name} are another file than they were there, {said}.")


def _copy(record: Record, old: str, result: FrozenTrial) -> FrozenTrial | None:
    """A result as the new space would have given it; None where it cannot.

    One that `old` itself took over stays the result of the search that it is of. What Optuna is told of it is as the
    new search would have told it, whose objectives and limits may be others.
    """
    try:
        trial = record.space.baseline_trial(_recipe(result))
    except UserError:
        return None
    origin = result.user_attrs.get(PRIOR, {"search": old, "number": result.number})
    known = as_trial(old, result, False, record.goal)
    scores = {} if record.space.search.minimize else _scores(known)
    values = record.values(known) if result.state == TrialState.COMPLETE else list(scores.values())[-1:]
    copy = create_trial(
        state=result.state,
        values=values or None,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={PRIOR: origin, **{name: result.user_attrs[name] for name in KEPT if name in result.user_attrs}},
        intermediate_values=scores,
        constraints={str(name): share for name, share in record.constraints(known).items()},
    )
    copy.datetime_start, copy.datetime_complete = result.datetime_start, result.datetime_complete
    return copy


def _scores(trial: Trial) -> dict[int, float]:
    """After each epoch, what the score was then."""
    so_far = [replace(trial, state="running", curve=trial.curve[:n]) for n in range(1, trial.epochs + 1)]
    return {each.epochs: each.val_accuracy for each in so_far if each.val_accuracy is not None}


def _recipe(result: FrozenTrial) -> Recipe:
    return Recipe.model_validate(result.user_attrs["recipe"])
