"""One trial in full: its result, its recipe, its learning curve, its error, and the command that runs it alone."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from cifar_tune.errors import UserError
from cifar_tune.provenance import as_typed
from cifar_tune.recipe.recipe import Recipe, field_of
from cifar_tune.report.sentences import format_state
from cifar_tune.report.text import pairs_table
from cifar_tune.search.space import load_space
from cifar_tune.trials.facts import LET_THROUGH, PREFIX
from cifar_tune.trials.ranking import baseline_score, gain_in_points
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_cost, format_points, format_score, format_seconds


def describe_trial(trials: Sequence[Trial], number: int, space: Path) -> list[Table | Text]:
    """The trial of that number, of the trials of a search, whose stored space file is `space`."""
    trial = next(trial for trial in trials if trial.number == number)
    parts: list[Table | Text] = [
        Text(_headline(trial, baseline_score(trials)), style="bold"),
        *_breaches(trial),
        Text(_describe_epochs(trial)),
        pairs_table("recipe", trial.recipe.flatten(), {field_of(name) for name in trial.params}),
        pairs_table("facts", {**_facts(trial), "mlflow_run_id": trial.mlflow_run_id}),
    ]
    if trial.curve:
        parts.append(_curve(trial))
    if trial.error:
        parts.append(Text(trial.error, style="red"))
    baseline = trials[0].recipe
    with suppress(UserError):  # the copy is missing or damaged
        baseline = load_space(space).baselines[0]
    hint = "To run this trial alone, in one process (add --data-dir if the search had it):"
    return [*parts, Text(f"{hint}\n  {_command(trial, baseline, space)}")]


def _headline(trial: Trial, baseline: float | None) -> str:
    score = format_score(trial.goal.score, trial.score) if trial.score is not None else "no score"
    gain = None if trial.is_baseline else gain_in_points(trial, baseline)
    points = f", {format_points(gain)} points over the baseline" if gain is not None else ""
    role = "baseline, " if trial.is_baseline else ""
    return f"{trial.search} trial {trial.number}: {role}{format_state(trial)}, {score}{points}"


def _breaches(trial: Trial) -> list[Text]:
    """A line for each limit that the trial is over."""
    limits, costs = trial.goal.limits.by_cost, {name: trial.cost(name) or 0 for name in trial.over_limits}
    return [
        Text(f"Over its limit: {format_cost(name, cost)}, where at most {format_cost(name, limits[name])} are allowed")
        for name, cost in costs.items()
    ]


def _describe_epochs(trial: Trial) -> str:
    epochs = f"{trial.epochs} of {trial.recipe.epochs} epochs in {format_seconds(trial.seconds)}"
    return epochs + (f", let through at epoch {trial.facts[LET_THROUGH]}" if LET_THROUGH in trial.facts else "")


def _facts(trial: Trial) -> dict[str, Any]:
    """The trial's facts without its times, which the page adds up."""
    return {name: value for name, value in trial.facts.items() if not name.startswith(PREFIX)}


def _curve(trial: Trial) -> Table:
    table = Table(title="learning curve", title_justify="left", box=None, pad_edge=False)
    names = [name for name in trial.curve[0] if name != "progress"]
    for name in names:
        table.add_column(name.replace("_", "\n", 1), justify="right")
    for epoch in trial.curve:
        table.add_row(*(f"{epoch[name]:.4g}" for name in names))
    return table


def _command(trial: Trial, baseline: Recipe, space: Path) -> str:
    """The command that trains the trial's recipe: `--set` for every field in which it differs from the baseline.

    Of a variant that differs, such as another optimizer, every option is set.
    """
    base = baseline.flatten()
    if trial.recipe.epochs != baseline.epochs:
        base.pop("finetune/head_epochs", None)  # it changes with the epochs unless it is set
    flat = trial.recipe.flatten()
    switched = {name.partition("/")[0] for name in flat if name.endswith("/name") and base.get(name) != flat[name]}
    base = {name: value for name, value in base.items() if name.partition("/")[0] not in switched}
    settings = [f"{name}={value}" for name, value in flat.items() if base.get(name, ...) != value]
    return as_typed("run", str(space), "--debug", *(f"--set={setting}" for setting in settings))
