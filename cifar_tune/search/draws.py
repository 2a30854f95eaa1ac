"""Draws: where the values of the next trial come from, and which draws of the sampler are no trials.

A draw is refused that repeats a trial, that fails like others, that makes no recipe, or that exceeds the search's
limits. It is closed in Optuna's study and another is drawn; after several of them, one is sought at random.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import optuna
from optuna.trial import TrialState

from cifar_tune.errors import InvalidRecipeError, UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.crashes import Crashes
from cifar_tune.search.limits import check_limits, draw_where, excess
from cifar_tune.search.space import Space

REFUSED = "over_limits"  # attribute of a draw that was not trained: why, or the share by which it exceeds each limit
EXHAUSTED = "exhausted"  # attribute of the search: whether no recipe is left to try
NUM_DRAWS = 20  # draws of the sampler that are refused, before a recipe to train is sought at random
NUM_REPEATS = 3  # the same for draws that repeat a trial: then hardly any recipe is left
NUM_OF_GP = 2  # the same with Optuna's Gaussian process: it learns nothing from them, and takes a second for each
REPEAT, CRASH, INVALID = "repeats a trial", "fails like others", "makes no recipe"  # why a draw is refused


class NoTrialLeftError(Exception):
    """No recipe of the space is left to try, as far as random draws can tell."""


class _RefusedError(Exception):
    """A draw of the sampler that is no trial, with the reasons."""

    def __init__(self, reasons: Mapping[str, float]) -> None:
        super().__init__(reasons)
        self.reasons = reasons


class Draw(NamedTuple):
    """A trial to train: Optuna's, its recipe, and whether it is new, and not one that was interrupted."""

    asked: optuna.Trial
    recipe: Recipe
    is_new: bool


class Draws:
    """Draws the trials of a study one after the other; `interrupted` are the numbers of those to resume first.

    `recipes` are those of the trials so far.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        crashes: Crashes,
        seed: int,
        recipes: Iterable[Recipe],
        interrupted: Iterable[int],
    ) -> None:
        self.interrupted = list(interrupted)
        self._study = study
        self._space = space
        self._crashes = crashes
        self._seed = seed
        self._recipes = set(recipes)
        # Whether no recipe of the space is left to try, as far as random draws can tell; the record writes it.
        self.is_exhausted = bool(study.user_attrs.get(EXHAUSTED, False))

    def next(self) -> Draw:
        """An interrupted trial, or one with the values of the next baseline or of the sampler.

        Raises a NoTrialLeftError if no recipe of the space is left to try.
        """
        refusals: Counter[str] = Counter()
        num_draws = NUM_OF_GP if self._space.search.sampler == "gp" else NUM_DRAWS
        while True:
            if refusals.total() >= num_draws or refusals[REPEAT] >= NUM_REPEATS:
                self._enqueue_random()
                refusals.clear()
            asked, is_new = self._ask()
            try:
                recipe = self._sample(asked)
            except _RefusedError as refused:
                self._refuse(asked, refused.reasons)
                refusals.update(refused.reasons.keys())
            else:
                self._recipes.add(recipe)
                return Draw(asked, recipe, is_new)

    def _ask(self) -> tuple[optuna.Trial, bool]:
        if self.interrupted:
            number = self.interrupted.pop(0)
            return optuna.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id), False
        if self.is_exhausted:
            raise NoTrialLeftError
        return self._study.ask(), True

    def _enqueue_random(self) -> None:
        """Give the next trial the values of a random recipe that is not refused."""
        rng = random.Random(f"{self._seed} {len(self._study.get_trials(deepcopy=False))}")
        trial = draw_where(self._space, rng, lambda trial, recipe: not self._refusal(trial.params, recipe))
        if trial is None:
            check_limits(self._space)  # a UserError where the limits leave nothing
            self.is_exhausted = True
            raise NoTrialLeftError
        self._study.enqueue_trial(trial.params)

    def _sample(self, asked: optuna.Trial) -> Recipe:
        """The space's recipe for the trial; a trial that was interrupted while it was sampled gets the same values.

        Raises _RefusedError for a draw of the sampler that is no trial.
        """
        frozen = self._study._storage.get_trial(asked._trial_id)
        is_chosen = "recipe" in frozen.user_attrs or "fixed_params" in frozen.system_attrs
        try:
            if not is_chosen:  # the sampler runs here, so that its errors are not taken for the space's
                _ = asked.relative_params
            recipe = self._space.sample(asked)
        except InvalidRecipeError as error:
            raise _RefusedError({INVALID: 1.0}) from error
        except UserError as error:  # closed, because the same values would stop the search each time it is resumed
            asked.set_user_attr(REFUSED, {INVALID: 1.0})
            self._study.tell(asked, state=TrialState.FAIL)
            raise UserError(f"{error} The same command goes on with another draw.") from error
        baselines = self._space.baselines
        if asked.number < len(baselines) and recipe != baselines[asked.number]:
            raise RuntimeError(f"Trial {asked.number} must be a baseline, but is {recipe}.")
        reasons = {} if is_chosen else self._refusal(asked.params, recipe)
        if reasons:
            raise _RefusedError(reasons)
        return recipe

    def _refusal(self, params: Mapping[str, Any], recipe: Recipe) -> dict[str, float]:
        """Why a draw is no trial: it repeats one, trials like it failed alike, or it exceeds limits; empty for most."""
        if recipe in self._recipes:
            return {REPEAT: 1.0}
        if self._crashes.rule_for(params):
            return {CRASH: 1.0}
        shares = excess(recipe, self._space.search.limits)
        return {str(name): share for name, share in shares.items()} if any(s > 0 for s in shares.values()) else {}

    def _refuse(self, asked: optuna.Trial, reasons: Mapping[str, float]) -> None:
        """Close a draw that is no trial; TPE learns to avoid it, except where a trial has its score."""
        for name in reasons.keys() - {REPEAT, CRASH, INVALID}:
            asked.set_constraint(name, reasons[name])
        asked.set_user_attr(REFUSED, dict(reasons))
        self._study.tell(asked, state=TrialState.FAIL if REPEAT in reasons else TrialState.PRUNED)
