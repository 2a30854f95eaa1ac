"""A search space, loaded from its file: BASELINE (or BASELINES), `space(trial) -> Recipe` and SEARCH.

Everything that can be wrong with a space file is reported here, before anything is launched.
"""

import ast
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import BaseTrial

from cifar_tune.errors import InvalidRecipeError, UserError
from cifar_tune.recipe.recipe import Recipe, Value, nearest
from cifar_tune.search.ranges import contains, format_range
from cifar_tune.search.search import ONE_OBJECTIVE, UNCONDITIONAL, Search
from cifar_tune.search.stand_ins import BaselineTrial, WithSettings
from cifar_tune.search.user_code import UserCode, as_user_error

# The same in all trials of a search, so that scores can be compared.
TASK_FIELDS = ("dataset", "num_classes", "image_size", "train_images", "seed")
NUM_CHECKED_DRAWS = 20
MAX_INVALID = 100  # random draws in a row that make no recipe, before a UserError
NUM_RANGE_DRAWS = 200


@dataclass(frozen=True)
class Draw:
    """A random trial: the values that it samples, their distributions, and its recipe."""

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    recipe: Recipe


@dataclass(frozen=True)
class Space:
    """A loaded space file with the `--set` settings applied; `baselines` are the recipes of its first trials.

    `settings` are texts by field, `fixed` the same as values of the fields' types. `helpers` are the texts of the
    modules beside the file that it imports, by their paths relative to its folder.
    """

    path: Path
    source: str
    baselines: tuple[Recipe, ...]
    search: Search
    settings: Mapping[str, str]
    fixed: Mapping[str, Value]
    function: Callable[[optuna.Trial], Recipe]
    helpers: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    def sample(self, trial: BaseTrial) -> Recipe:
        """The recipe that the file's `space` makes for a trial; a UserError names the line where it fails.

        It is an InvalidRecipeError where the values make no recipe together, or where `space` raises TrialPruned.
        """
        try:
            recipe = self.function(cast(optuna.Trial, WithSettings(trial, self.fixed)))
        except (Exception, SystemExit) as error:
            raise as_user_error(error, self.path) from error
        if not isinstance(recipe, Recipe):
            raise UserError(f"{self.path}: space(trial) must return a Recipe, not {type(recipe).__name__}.")
        return _apply(recipe, self.settings)

    def check(self) -> None:
        """Raise a UserError for anything that would otherwise go wrong in the middle of a search."""
        draws = self.draw(NUM_CHECKED_DRAWS)
        baselines = [self.baseline_trial(baseline) for baseline in self.baselines]
        self._check_sampler([*(t.distributions for t in baselines), *(t.distributions for t in draws)])
        self._check_objectives()

    def _check_sampler(self, trials: Sequence[Mapping[str, BaseDistribution]]) -> None:
        """Raise a UserError where the sampler would draw some values of this space at random."""
        sampler = self.search.sampler
        ranges = {name: distribution for trial in trials for name, distribution in trial.items()}
        conditional = [name for name in ranges if not all(name in trial for trial in trials)]
        choices = [name for name, distribution in ranges.items() if isinstance(distribution, CategoricalDistribution)]
        if sampler in UNCONDITIONAL and conditional:
            raise UserError(
                f"{self.path}: the sampler {sampler} cannot search a conditional space ({conditional[0]} is not in "
                f"every recipe); choose forecast, tpe or random, or fix its condition with --set."
            )
        if sampler == "cmaes" and choices:
            raise UserError(
                f"{self.path}: the sampler cmaes searches numbers only, and {choices[0]} is a choice; "
                f"choose another sampler, or fix it with --set."
            )

    def _check_objectives(self) -> None:
        """Raise a UserError where a cost is minimized, but the sampler or the scheduler uses the score only."""
        search = self.search
        if search.minimize is None:
            return
        conflict = f"uses accuracy only, but SEARCH minimizes {search.minimize} too"
        if search.sampler in ONE_OBJECTIVE:
            raise UserError(f"{self.path}: the sampler {search.sampler} {conflict}; choose tpe, random, gp or qmc.")
        if search.scheduler.name in ("forecast", "freeze-thaw"):
            raise UserError(
                f"{self.path}: the scheduler {search.scheduler.name} {conflict}; "
                f"choose asha, asha-promotion, hyperband, median or none."
            )

    def baseline_trial(self, baseline: Recipe) -> BaselineTrial:
        """The trial whose values give the baseline; a UserError where a value is out of range or comes out changed."""
        trial = BaselineTrial(baseline)
        recipe = self.sample(cast(BaseTrial, trial))
        for name, distribution in trial.distributions.items():
            if not contains(distribution, trial.params[name]):
                raise UserError(
                    f"{self.path}: the baseline's {name}={trial.params[name]} lies outside its range "
                    f"{format_range(distribution)}; widen the range, change the baseline, or fix the field with --set."
                )
        if recipe != baseline:
            ours, theirs = recipe.flatten(), baseline.flatten()
            name = next(name for name in {**theirs, **ours} if ours.get(name) != theirs.get(name))
            raise UserError(
                f"{self.path}: space(trial) cannot give the baseline: {name} comes out as {ours.get(name)!r}, "
                f"but BASELINE has {theirs.get(name)!r}; make the two equal."
            )
        return trial

    def first_params(self) -> list[dict[str, Any]]:
        """The values of the first trials, which the sampler does not choose: the baselines'."""
        return [self.baseline_trial(baseline).params for baseline in self.baselines]

    def watched(self, params: Mapping[str, Any]) -> Sequence[Sequence[float]] | None:
        """The validation by epoch that a trial uses in place of its own; None where it has its own."""
        return None

    @property
    def description(self) -> str:
        """The file's docstring, the settings and the file's code, in Markdown; MLflow shows it."""
        source = self.source.removeprefix("\ufeff")  # a byte-order mark
        tree, lines = ast.parse(source), source.splitlines()
        docstring = (ast.get_docstring(tree, clean=False) or "").strip()
        fixed = ", ".join(f"`{name}={value}`" for name, value in self.settings.items())
        code = "\n".join(lines[tree.body[0].end_lineno :] if docstring else lines).strip()
        parts = [docstring, f"In every trial: {fixed}." if fixed else None, f"```python\n{code}\n```"]
        return "\n\n".join(part for part in parts if part)

    def ranges(self) -> dict[str, BaseDistribution]:
        """Every sampled name with its distribution, the baselines' names first; rare names may be missing."""
        baselines = [self.baseline_trial(baseline).distributions for baseline in self.baselines]
        ranges: dict[str, BaseDistribution] = {}
        for distributions in (*baselines, *(draw.distributions for draw in self.draw(NUM_RANGE_DRAWS))):
            ranges |= {name: d for name, d in distributions.items() if name not in ranges}
        return ranges

    def draw(self, num_trials: int = NUM_RANGE_DRAWS) -> list[Draw]:
        """Random trials, the same ones each time; they show the branches of the space, except perhaps rare ones.

        Values that make no recipe are drawn again. Raises a UserError where a sampled value is not the Recipe's, or
        where a name has two ranges.
        """
        ranges: dict[str, BaseDistribution] = {}
        draws = []
        for trial, recipe in islice(self.sample_random_trials(), num_trials):
            self._check_draw(trial.params, recipe)
            for name, distribution in trial.distributions.items():
                if ranges.setdefault(name, distribution) != distribution:
                    raise UserError(
                        f"{self.path}: space(trial) gives {name} the range {format_range(distribution)} and also "
                        f"{format_range(ranges[name])}; use one, or put the variant into the name (optimizer/sgd/lr)."
                    )
            draws.append(Draw(trial.params, trial.distributions, recipe))
        return draws

    def sample_random_trials(self) -> Iterator[tuple[optuna.Trial, Recipe]]:
        """Random trials with their recipes, without an end; those whose values make no recipe are left out."""
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        num_invalid = 0
        while True:
            trial = study.ask()
            try:
                recipe = self.sample(trial)
            except InvalidRecipeError as error:
                num_invalid += 1
                if num_invalid == MAX_INVALID:
                    raise UserError(f"{MAX_INVALID} random draws make no recipe; narrow the space. {error}") from None
                continue
            num_invalid = 0
            yield trial, recipe

    def draw_recipes(self, num_trials: int = NUM_CHECKED_DRAWS) -> list[Recipe]:
        """The recipes of random trials."""
        return [draw.recipe for draw in self.draw(num_trials)]

    def _check_draw(self, params: Mapping[str, Any], recipe: Recipe) -> None:
        flat, task = recipe.flatten(), self.baselines[0].flatten()
        for name in TASK_FIELDS:
            if flat[name] != task[name]:
                raise UserError(
                    f"{self.path}: space(trial) changes {name} from the baseline's {task[name]!r} to {flat[name]!r}; "
                    f"keep it the same in every trial, or their scores cannot be compared."
                )
        names = recipe.sampled_names()
        for name, value in params.items():
            if name not in names:
                hint = nearest(name, names)
                raise UserError(f"{self.path}: space(trial) samples {name!r}, which is no field; {hint}.")
            if names[name] != value:
                raise UserError(
                    f"{self.path}: space(trial) samples {name}={value!r} but the Recipe gets {names[name]!r}; "
                    f"sample the value that the Recipe uses."
                )


def load_space(path: Path, settings: Mapping[str, str] | None = None) -> Space:
    """The space of a file, with the settings of its own SETTINGS applied, and after them the given ones.

    Raises a UserError, with the line where there is one, for anything that is wrong.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - which is no error where the path is too long or may not be seen
        raise UserError(f"There is no search-space file {path}; give the path of one, like search_spaces/resnet9.py.")
    code = UserCode(path)
    module = code.run()
    settings = _printable({**_own_settings(module, path), **(settings or {})})
    baselines = _baselines(module, path)
    function = getattr(module, "space", None)
    if not callable(function):
        raise UserError(f"{path} defines no space(trial) function; add one that returns a Recipe.")
    function = code.with_helpers(function)
    search = getattr(module, "SEARCH", Search())
    if not isinstance(search, Search):
        raise UserError(f"{path}: SEARCH must be a Search, not {type(search).__name__}.")
    unset = Space(path, code.source, tuple(baselines), search, {}, {}, function, helpers=code.helpers)
    drawn = [recipe for _, recipe in islice(unset.sample_random_trials(), NUM_CHECKED_DRAWS if settings else 0)]
    fixed = _fixed_values(settings, _of_variants([*baselines, *drawn], settings), own=_own_settings(module, path))
    baselines = _of_variants(baselines, settings)
    baselines = list(dict.fromkeys(_apply(baseline, settings) for baseline in baselines))  # settings make some equal
    space = replace(unset, baselines=tuple(baselines), settings=settings, fixed=fixed)
    space.check()
    return space


def _baselines(module: ModuleType, path: Path) -> list[Recipe]:
    baselines = getattr(module, "BASELINES", [])
    if baselines is None or (isinstance(baselines, list | tuple) and not baselines):
        baselines = [getattr(module, "BASELINE", None)]
    if not isinstance(baselines, list | tuple):
        raise UserError(f"{path}: BASELINES must be a list of Recipes, not {type(baselines).__name__}.")
    if list(baselines) == [None]:
        raise UserError(f"{path} defines no BASELINE; add the recipe to beat, which is always trial 0.")
    for recipe in baselines:
        if not isinstance(recipe, Recipe):
            raise UserError(f"{path}: a baseline must be a Recipe, not {type(recipe).__name__}.")
    return list(baselines)


def _own_settings(module: ModuleType, path: Path) -> dict[str, str]:
    """The file's SETTINGS, which fix fields as `--set` does on the command line."""
    settings = getattr(module, "SETTINGS", {})
    if not isinstance(settings, dict) or not all(isinstance(text, str) for pair in settings.items() for text in pair):
        raise UserError(f"{path}: SETTINGS must be a dict of fields and values as texts, like {{'epochs': '10'}}.")
    return dict(settings)


def _printable(settings: dict[str, str]) -> dict[str, str]:
    """The settings; a UserError for control characters, and for bytes that are no text, which no record can hold."""
    for name, text in settings.items():
        if not f"{name}{text}".isprintable():
            raise UserError(f"--set {name}={text}: it has characters that are no text; correct it.")
    return settings


def _of_variants(recipes: list[Recipe], settings: Mapping[str, str]) -> list[Recipe]:
    """The recipes that already have the variants (`model/name`) in the settings; all recipes if none has them."""
    variants = {name: value for name, value in settings.items() if name.endswith("/name")}
    matching = [recipe for recipe in recipes if variants.items() <= recipe.flatten().items()]
    return matching or recipes


def _fixed_values(settings: Mapping[str, str], recipes: Sequence[Recipe], own: Mapping[str, str]) -> dict[str, Value]:
    """The settings as values of their fields' types; a UserError for a field that no recipe of the space has.

    `own` are the settings that come from the space file.
    """
    flat = [_apply(recipe, settings).flatten() for recipe in recipes]
    fixed: dict[str, Value] = {}
    for name in settings:
        fields = next((fields for fields in flat if name in fields), None)
        if fields is None:
            choices = sorted({name for fields in flat for name in fields})
            source = "SETTINGS" if name in own else "--set"
            raise UserError(f"{source} {name}: the recipe has no such field; {nearest(name, choices)}.")
        fixed[name] = fields[name]
    return fixed


def _apply(recipe: Recipe, settings: Mapping[str, str]) -> Recipe:
    """The recipe with the settings of the fields that it has; settings for other branches are skipped."""
    return recipe.replace(settings, skip_unknown=True) if settings else recipe
