"""A search-space file: BASELINE (or BASELINES), `space(trial) -> Recipe` and SEARCH, loaded and checked.

Whatever can be wrong with it is found here, before anything is launched.
"""

import ast
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial
from pydantic import ValidationError, model_validator

from cifar_tune.errors import UserError
from cifar_tune.recipe.options import Count
from cifar_tune.recipe.recipe import Recipe, Value, explain, nearest
from cifar_tune.search.schedulers import Asha, ByForecast, Scheduler
from cifar_tune.search.stand_ins import BaselineTrial, WithSettings
from cifar_tune.trials.goal import Goal

TASK_FIELDS = ("dataset", "train_images", "seed")  # what makes the trials of one search comparable
NUM_CHECKED_DRAWS = 20
NUM_RANGE_DRAWS = 200


SamplerName = Literal["forecast", "tpe", "random", "gp", "cmaes", "qmc"]
UNCONDITIONAL: tuple[SamplerName, ...] = ("gp", "cmaes", "qmc")  # Optuna's know only what every trial has
TWO_OBJECTIVES: Mapping[str, Any] = {"sampler": "tpe", "scheduler": Asha()}
ONE_OBJECTIVE: tuple[SamplerName, ...] = ("forecast", "cmaes")  # accuracy alone


class Search(Goal):
    """How to search a space, and what for: the budget, where recipes come from, which trials are stopped early."""

    num_trials: Count = 40
    sampler: SamplerName = "forecast"
    scheduler: Scheduler = ByForecast()

    @model_validator(mode="before")
    @classmethod
    def _serving_two_objectives(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Where a cost is minimized the defaults are others: a forecast is of accuracy alone."""
        return {**TWO_OBJECTIVES, **given} if given.get("minimize") else given

    @property
    def goal(self) -> Goal:
        """What it is searched for, without the how."""
        return Goal(minimize=self.minimize, limits=self.limits)


@dataclass(frozen=True)
class Draw:
    """What a random trial sampled, from where, and its recipe."""

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    recipe: Recipe


@dataclass(frozen=True)
class Space:
    """A loaded space file with the `--set` settings applied; `baselines` are its first trials."""

    path: Path
    source: str
    baselines: tuple[Recipe, ...]
    search: Search
    settings: Mapping[str, str]
    fixed: Mapping[str, Value]  # the settings as values of their fields' types
    function: Callable[[optuna.Trial], Recipe]

    def sample(self, trial: BaseTrial) -> Recipe:
        """What the file's `space` makes of a trial, under the settings; a UserError with the line where it fails."""
        try:
            recipe = self.function(cast(optuna.Trial, WithSettings(trial, self.fixed)))
        except Exception as error:
            raise UserError(f"{_where(error, self.path)}: {_what(error)}.") from error
        if not isinstance(recipe, Recipe):
            raise UserError(f"{self.path}: space(trial) must return a Recipe, not {type(recipe).__name__}.")
        return _apply(recipe, self.settings)

    def check(self) -> None:
        """Raise a UserError for what would otherwise go wrong in the middle of a search."""
        drawn = self.draw(NUM_CHECKED_DRAWS)
        baselines = [self.baseline_trial(baseline) for baseline in self.baselines]
        self._check_sampler([*(t.distributions for t in baselines), *(t.distributions for t in drawn)])
        self._check_objectives()

    def _check_sampler(self, trials: Sequence[Mapping[str, BaseDistribution]]) -> None:
        """Raise a UserError where the sampler would leave values of this space to chance."""
        sampler = self.search.sampler
        ranges = {name: distribution for trial in trials for name, distribution in trial.items()}
        conditional = [name for name in ranges if not all(name in trial for trial in trials)]
        choices = [name for name, found in ranges.items() if isinstance(found, CategoricalDistribution)]
        if sampler in UNCONDITIONAL and conditional:
            raise UserError(
                f"{self.path}: the sampler {sampler} cannot search a conditional space, and not every recipe has "
                f"{conditional[0]}; choose forecast, tpe or random, or fix what it depends on with --set."
            )
        if sampler == "cmaes" and choices:
            raise UserError(
                f"{self.path}: the sampler cmaes searches numbers alone, and {choices[0]} is a choice; "
                f"choose another sampler, or fix it with --set."
            )

    def _check_objectives(self) -> None:
        """Raise a UserError where the sampler or the scheduler knows of accuracy alone, and more is asked for."""
        search = self.search
        if search.minimize is None:
            return
        said = f"goes by accuracy alone, and SEARCH minimizes {search.minimize} too"
        if search.sampler in ONE_OBJECTIVE:
            raise UserError(f"{self.path}: the sampler {search.sampler} {said}; choose tpe, random, gp or qmc.")
        if search.scheduler.name == "forecast":
            raise UserError(f"{self.path}: the scheduler forecast {said}; choose asha, hyperband, median or none.")

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
                f"{self.path}: space(trial) cannot give the baseline: {name} comes out as {ours.get(name)!r} "
                f"where BASELINE has {theirs.get(name)!r}; let both say the same."
            )
        return trial

    def first_params(self) -> list[dict[str, Any]]:
        """What the first trials sample, whatever the sampler is."""
        return [self.baseline_trial(baseline).params for baseline in self.baselines]

    def watched(self, params: Mapping[str, Any]) -> Sequence[tuple[float, float]] | None:
        """What is to be watched in place of the trial's own validation: nothing, where there is that."""
        return None

    @property
    def description(self) -> str:
        """What it is, in Markdown, for people who look at its search elsewhere: the file's own words, then its code."""
        source = self.source.removeprefix("\ufeff")  # a byte-order mark
        tree, lines = ast.parse(source), source.splitlines()
        said = (ast.get_docstring(tree, clean=False) or "").strip()
        fixed = ", ".join(f"`{name}={value}`" for name, value in self.settings.items())
        code = "\n".join(lines[tree.body[0].end_lineno :] if said else lines).strip()
        parts = [said, f"In every trial: {fixed}." if fixed else None, f"```python\n{code}\n```"]
        return "\n\n".join(part for part in parts if part)

    def ranges(self) -> dict[str, BaseDistribution]:
        """Every sampled name with its distribution, the baselines' names first; a rare branch may be missing."""
        asked = [self.baseline_trial(baseline).distributions for baseline in self.baselines]
        found: dict[str, BaseDistribution] = {}
        for distributions in (*asked, *(drawn.distributions for drawn in self.draw(NUM_RANGE_DRAWS))):
            found |= {name: d for name, d in distributions.items() if name not in found}
        return found

    def draw(self, num_trials: int = NUM_RANGE_DRAWS) -> list[Draw]:
        """Random trials, the same ones each time: what the branches of the space look like; a rare one may be missing.

        Each is checked: sampled values are the Recipe's fields, and the task stays the same.
        """
        ranges: dict[str, BaseDistribution] = {}
        draws = []
        for trial in _random_trials(num_trials):
            recipe = self.sample(trial)
            self._check_draw(trial.params, recipe)
            for name, distribution in trial.distributions.items():
                if ranges.setdefault(name, distribution) != distribution:
                    raise UserError(
                        f"{self.path}: space(trial) gives {name} the range {format_range(distribution)} and also "
                        f"{format_range(ranges[name])}; use one, or carry the variant in the name (optimizer/sgd/lr)."
                    )
            draws.append(Draw(trial.params, trial.distributions, recipe))
        return draws

    def draw_recipes(self, num_trials: int = NUM_CHECKED_DRAWS) -> list[Recipe]:
        """Those of random trials."""
        return [drawn.recipe for drawn in self.draw(num_trials)]

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


def _random_trials(number: int) -> list[optuna.Trial]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [study.ask() for _ in range(number)]


def load_space(path: Path, settings: Mapping[str, str] | None = None) -> Space:
    """Load a space file and apply the settings, after those of its own SETTINGS.

    A UserError, with the line where there is one, for what is wrong.
    """
    if not path.is_file():
        raise UserError(f"There is no search-space file {path}; give the path of one, like search_spaces/resnet9.py.")
    source = path.read_text(encoding="utf-8", errors="replace")
    module = _execute(path)
    settings = {**_own_settings(module, path), **(settings or {})}
    baselines = _baselines(module, path)
    function = getattr(module, "space", None)
    if not callable(function):
        raise UserError(f"{path} defines no space(trial) function; add one that returns a Recipe.")
    search = getattr(module, "SEARCH", Search())
    if not isinstance(search, Search):
        raise UserError(f"{path}: SEARCH must be a Search, not {type(search).__name__}.")
    unset = Space(path, source, tuple(baselines), search, {}, {}, function)
    drawn = [unset.sample(trial) for trial in _random_trials(NUM_CHECKED_DRAWS)] if settings else []
    fixed = _fixed_values(settings, _of_variants([*baselines, *drawn], settings), own=_own_settings(module, path))
    baselines = _of_variants(baselines, settings)
    baselines = list(dict.fromkeys(_apply(baseline, settings) for baseline in baselines))  # some may now be one
    space = Space(path, source, tuple(baselines), search, settings, fixed, function)
    space.check()
    return space


def format_range(distribution: BaseDistribution) -> str:
    """`[0.001, 0.1] log`, or the choices."""
    if isinstance(distribution, CategoricalDistribution):
        return "{" + ", ".join(str(choice) for choice in distribution.choices) + "}"
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    log = " log" if distribution.log else ""
    step = f" step {distribution.step}" if distribution.step not in (None, 1) else ""
    return f"[{distribution.low:g}, {distribution.high:g}]{log}{step}"


def contains(distribution: BaseDistribution, value: Any) -> bool:  # noqa: ANN401 - a choice may be of any type
    """Whether a distribution can give the value; Optuna itself only warns where it cannot."""
    if isinstance(distribution, CategoricalDistribution):
        return any(choice == value for choice in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(value, bool | str) or value is None or not distribution.low <= value <= distribution.high:
        return False
    steps = (value - distribution.low) / distribution.step if distribution.step else 0.0
    return bool(abs(steps - round(steps)) < 1e-8)


def _execute(path: Path) -> ModuleType:
    """Run the file as a module of a name of its own, so that its tracebacks and dataclasses work."""
    name = f"cifar_tune_space_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file; a search space is one that defines BASELINE and space(trial).")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{_where(error, path)}: {_what(error)}.") from error
    return module


def _baselines(module: ModuleType, path: Path) -> list[Recipe]:
    found = getattr(module, "BASELINES", None) or [getattr(module, "BASELINE", None)]
    if not isinstance(found, list | tuple):
        raise UserError(f"{path}: BASELINES must be a list of Recipes, not {type(found).__name__}.")
    if list(found) == [None]:
        raise UserError(f"{path} defines no BASELINE; add the recipe to beat, which is always trial 0.")
    for recipe in found:
        if not isinstance(recipe, Recipe):
            raise UserError(f"{path}: a baseline must be a Recipe, not {type(recipe).__name__}.")
    return list(found)


def _own_settings(module: ModuleType, path: Path) -> dict[str, str]:
    """What the file fixes as `--set` does on the command line."""
    found = getattr(module, "SETTINGS", {})
    if not isinstance(found, dict) or not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise UserError(f"{path}: SETTINGS must be a dict of fields and values as texts, like {{'epochs': '10'}}.")
    return dict(found)


def _of_variants(recipes: list[Recipe], settings: Mapping[str, str]) -> list[Recipe]:
    """The recipes that have the variants that are set; all of them where none has, and each is to be changed."""
    variants = {name: value for name, value in settings.items() if name.endswith("/name")}
    having = [recipe for recipe in recipes if variants.items() <= recipe.flatten().items()]
    return having or recipes


def _fixed_values(settings: Mapping[str, str], recipes: Sequence[Recipe], own: Mapping[str, str]) -> dict[str, Value]:
    """The settings as values of their fields' types; each must be a field of some recipe of the space.

    `own` are those that the space file brings.
    """
    flat = [_apply(recipe, settings).flatten() for recipe in recipes]
    fixed: dict[str, Value] = {}
    for name in settings:
        having = next((fields for fields in flat if name in fields), None)
        if having is None:
            known = sorted({name for fields in flat for name in fields})
            source = "SETTINGS" if name in own else "--set"
            raise UserError(f"{source} {name}: the recipe has no such field; {nearest(name, known)}.")
        fixed[name] = having[name]
    return fixed


def _apply(recipe: Recipe, settings: Mapping[str, str]) -> Recipe:
    """The settings that this recipe has; one for another branch of the space passes it by."""
    return recipe.replace(settings, skip_unknown=True) if settings else recipe


def _where(error: BaseException, path: Path) -> str:
    """`FILE, line N`, the innermost line of the file that the error passed through."""
    own = str(path.absolute())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    if isinstance(error, SyntaxError) and error.filename == own:
        lines.append(error.lineno)
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _what(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return explain(error, Search if error.title == Search.__name__ else Recipe)
    if isinstance(error, UserError):
        return str(error).rstrip(".")
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(message.split())}".rstrip(".: ")
