"""The leaderboard as text: a terminal's tables, csv, json and markdown. The sentences around it are sentences.py's."""

import json
import sys
from collections.abc import Hashable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, TextIO

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_tune.provenance import as_typed
from cifar_tune.recipe.recipe import Recipe, field_of
from cifar_tune.report.columns import (
    ALWAYS_SHOWN,
    LEADERBOARD,
    NOTHING,
    Column,
    TrialColumn,
    constant_columns,
    find_column,
    format_value,
    is_numeric,
    varying_columns,
)
from cifar_tune.report.findings import Findings
from cifar_tune.report.leaderboard import TASK, eligible, footnotes, leaderboard
from cifar_tune.report.pruning import RungFindings, pruning_by_rung
from cifar_tune.report.sentences import (
    pruning_caption,
    pruning_sentence,
    told_state,
    told_whole,
)
from cifar_tune.search.schedulers import LET_THROUGH
from cifar_tune.search.space import load_space
from cifar_tune.trials import facts as times
from cifar_tune.trials.ranking import baseline_accuracy, gain_in_points
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_cost

Format = Literal["table", "csv", "json", "markdown"]

PRUNING_HEADERS = ("rung", "schedules", "stopped", "epochs saved", "seconds saved", "rank correlation", "missed")
PADDING = 2  # between columns
NARROW = 100  # characters, under which a table that does not fit is written as a list
MAX_ROWS = 500  # of a table in a terminal; more would take longer to draw than to find out


def format_report(findings: Findings, kind: Format, columns: Sequence[TrialColumn] = LEADERBOARD) -> str:
    """The leaderboard as text for a machine or a document; the terminal's table is `as_table`."""
    frame = leaderboard(findings.searches, findings.confirmations, columns)
    if kind == "json":
        return json.dumps(_with_recipes(frame, findings.searches), indent=2) + "\n"
    notes = footnotes(frame) if kind == "markdown" else []
    return format_frame(frame, kind) + "".join(f"\n{note}.\n" for note in notes)


def format_frame(frame: pd.DataFrame, kind: Format) -> str:
    """Any frame as csv, json or markdown; a missing value is empty, null or a dash."""
    if kind == "csv":
        return frame.to_csv(index=False)
    if kind == "json":
        return json.dumps(_records(frame), indent=2) + "\n"
    return _markdown(frame)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [_named(row) for row in rows]


def _named(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}


def _with_recipes(frame: pd.DataFrame, searches: Mapping[str, Sequence[Trial]]) -> list[dict[str, Any]]:
    """The rows with the whole recipe and the MLflow run of each trial."""
    by_row = {(trial.search, trial.number): trial for trials in searches.values() for trial in trials}
    documents = []
    for row in _records(frame):
        trial = by_row[row["search"], row["trial"]]
        documents.append({**row, "recipe": trial.recipe.model_dump(mode="json"), "mlflow_run_id": trial.mlflow_run_id})
    return documents


def _markdown(frame: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * len(frame.columns)]
    for row in frame.to_dict("records"):
        lines.append("| " + " | ".join(format_value(str(name), value) for name, value in row.items()) + " |")
    return "\n".join(lines) + "\n"


def as_table(
    frame: pd.DataFrame,
    title: str,
    width: int,
    limit: int | None = None,
    columns: Sequence[TrialColumn] = LEADERBOARD,
) -> Table:
    """The leaderboard for a terminal of `width` characters.

    What is the same in every row moves into the title; columns that do not fit are left out, and named.
    """
    rows = frame.head(limit or len(frame))
    varying = varying_columns(frame, columns)
    cells = {column.name: [column.text(value) for value in rows[column.name]] for column in varying}
    fitting = _fitting(varying, cells, width)
    left_out = [column.name for column in varying if column not in fitting]
    notes = [f"not shown for want of width: {', '.join(left_out)}"] if left_out else []
    if len(rows) < len(frame):
        notes.append(f"the best {len(rows):,} of {len(frame):,} trials; report --format csv has all")
    same = [(column, frame[column.name].iloc[0]) for column in constant_columns(frame, columns)]
    heading = " · ".join([title, *(column.describe(value) for column, value in same if value != title)])
    table = Table(
        title=heading,
        caption="; ".join(notes) or None,
        title_justify="left",
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in fitting:
        _add_column(table, column, frame[column.name])
    eligible_rows = set(eligible(rows).index)
    for i, row in enumerate(rows.index):
        table.add_row(*(cells[column.name][i] for column in fitting), style="" if row in eligible_rows else "dim")
    return table


def _add_column(table: Table, column: Column, values: "pd.Series[Any]") -> None:
    justify: Literal["left", "right"] = "right" if is_numeric(values) else "left"
    table.add_column("\n".join(column.lines), justify=justify, header_style="bold")


def as_plain_table(frame: pd.DataFrame, title: str, width: int) -> list[Table]:
    """Any frame for a terminal of `width` characters, with lines that wrap; where it is narrow, a list for each row."""
    columns = [find_column(name) for name in map(str, frame.columns)]
    cells = [[column.text(value) for value in frame[column.name]] for column in columns]
    total = sum(_width(column, texts) for column, texts in zip(columns, cells, strict=True))
    if width < NARROW and total > width + PADDING:
        rows = frame.to_dict("records")
        return [_pairs(f"\n{title}, {i} of {len(rows)}", _named(row), set()) for i, row in enumerate(rows, start=1)]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        _add_column(table, column, frame[column.name])
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return [table]


def _fitting(columns: Sequence[TrialColumn], cells: Mapping[str, Sequence[str]], width: int) -> list[TrialColumn]:
    """The columns that fit, in order; those of the smallest priority are placed first."""
    left, kept = width + PADDING, set()
    for column in sorted(columns, key=lambda column: column.priority):
        needed = _width(column, cells[column.name])
        if needed <= left or column.priority == ALWAYS_SHOWN:
            kept.add(column.name)
            left -= needed
    return [column for column in columns if column.name in kept]


def _width(column: Column, texts: Sequence[str]) -> int:
    """The characters that a column takes, with the space to the next one."""
    return PADDING + max(len(text) for text in [*texts, *column.lines])


def output_console(file: TextIO) -> Console:
    """Of the terminal's width, or wide enough for a file or a pipe, which wrap nothing; a file is never in colour."""
    in_colour = None if file is sys.stdout else False  # None: as the terminal and the environment have it
    return Console(file=file, width=None if file.isatty() else 160, force_terminal=in_colour)


def render(findings: Findings, width: int) -> list[Table | Text]:
    """For a terminal of `width` characters: a table for each task; each search's headline, and what pruning did."""
    searches = findings.searches
    frame = leaderboard(searches, findings.confirmations)
    title = next(iter(searches)) if len(searches) == 1 else "leaderboard"
    tables = [as_table(task, title, width, limit=MAX_ROWS) for _, task in frame.groupby(TASK, dropna=False)]
    parts: list[Table | Text] = [*tables]
    for name, trials in searches.items():
        parts += [Text(f"\n{name}: {' '.join(told_whole(findings, name))}"), *describe_pruning(trials)]
    return [*parts, *(Text(f"\n{sentence}.", style="dim") for sentence in footnotes(frame))]


def describe_pruning(trials: Sequence[Trial]) -> list[Table | Text]:
    """What stopping trials early saved and risked: a sentence, and a table of the rungs; nothing where none was."""
    rungs = pruning_by_rung(trials)
    said = pruning_sentence(trials, rungs)
    if said is None:
        return []
    table = Table(caption=pruning_caption(trials), caption_justify="left", box=None, pad_edge=False)
    for header in PRUNING_HEADERS:
        justify: Literal["left", "right"] = "left" if header == "schedules" else "right"
        table.add_column(header.replace(" ", "\n"), justify=justify, header_style="bold")
    for row in pruning_rows(rungs):
        table.add_row(*row)
    return [Text(f"\n{said}"), table]


def pruning_rows(rungs: Sequence[RungFindings]) -> list[list[str]]:
    """PRUNING_HEADERS for each rung of each group of schedules."""
    rows = []
    for rung in rungs:
        correlation = NOTHING if rung.rank_correlation is None else f"{rung.rank_correlation:.2f}"
        missed = NOTHING if rung.estimated_missed is None else f"about {rung.estimated_missed:.1f}"
        cells = [
            f"{rung.fraction:g}",
            ", ".join(rung.schedules) + (" (phase 2)" if rung.num_phases > 1 else ""),
            str(rung.num_stopped),
            f"{rung.epochs_saved:,}",
            f"{rung.seconds_saved:,.0f}",
            f"{correlation} (n={rung.num_ranked})",
            f"{missed} (n={rung.num_let_through})",
        ]
        rows.append(cells)
    return rows


def describe_trial(trials: Sequence[Trial], number: int, space: Path) -> list[Table | Text]:
    """One trial whole: its result, its recipe, its learning curve, its error, the command that runs it alone."""
    trial = next(trial for trial in trials if trial.number == number)
    score = f"{100 * trial.val_accuracy:.2f} %" if trial.val_accuracy is not None else "no score"
    gain = gain_in_points(trial, baseline_accuracy(trials))
    against = f", {gain:+.2f} points over the baseline" if gain is not None and not trial.is_baseline else ""
    role = "baseline, " if trial.is_baseline else ""
    parts: list[Table | Text] = [
        Text(f"{trial.search} trial {trial.number}: {role}{told_state(trial)}, {score}{against}", style="bold"),
        *_breaches(trial),
        Text(f"{trial.epochs} of {trial.recipe.epochs} epochs in {trial.seconds:.1f} s{_since_when(trial)}"),
        _pairs("recipe", trial.recipe.flatten(), {field_of(name) for name in trial.params}),
        _pairs("facts", {**_told_facts(trial), "mlflow_run_id": trial.mlflow_run_id}, set()),
    ]
    if trial.curve:
        parts.append(_curve(trial))
    if trial.error:
        parts.append(Text(trial.error, style="red"))
    baseline = load_space(space).baselines[0] if space.exists() else trials[0].recipe
    hint = "To run it alone, in one process, with the --data-dir that the search had:"
    return [*parts, Text(f"{hint}\n  {_command(trial, baseline, space)}")]


def _told_facts(trial: Trial) -> dict[str, Any]:
    """Without its times, which the page adds up."""
    return {name: value for name, value in trial.facts.items() if not name.startswith(times.PREFIX)}


def _breaches(trial: Trial) -> list[Text]:
    """A line for each limit that it lies above."""
    limits, costs = trial.goal.limits.given, {name: trial.cost(name) or 0 for name in trial.over_limits}
    return [
        Text(f"Over its limit: {format_cost(name, cost)}, of at most {format_cost(name, limits[name])}")
        for name, cost in costs.items()
    ]


def _since_when(trial: Trial) -> str:
    """Of a trial that its scheduler would have stopped."""
    return f", let through at epoch {trial.facts[LET_THROUGH]}" if LET_THROUGH in trial.facts else ""


def _command(trial: Trial, baseline: Recipe, space: Path) -> str:
    """The space file's baseline with every field set in which the trial differs, and all of a variant that does."""
    base = baseline.flatten()
    if trial.recipe.epochs != baseline.epochs:
        base.pop("finetune/head_epochs", None)  # which changes with them unless it is said
    flat = trial.recipe.flatten()
    switched = {name.partition("/")[0] for name in flat if name.endswith("/name") and base.get(name) != flat[name]}
    base = {name: value for name, value in base.items() if name.partition("/")[0] not in switched}
    settings = [f"{name}={value}" for name, value in flat.items() if base.get(name, ...) != value]
    return as_typed("run", str(space), "--debug", *(f"--set={setting}" for setting in settings))


def _pairs(title: str, values: Mapping[str, Any], searched: Set[str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    for name, value in values.items():
        table.add_row(name, format_value(name, value), "searched" if name in searched else "")
    return table


def _curve(trial: Trial) -> Table:
    table = Table(title="learning curve", title_justify="left", box=None, pad_edge=False)
    names = [name for name in trial.curve[0] if name != "progress"]
    for name in names:
        table.add_column(name.replace("_", "\n", 1), justify="right")
    for epoch in trial.curve:
        table.add_row(*(f"{epoch[name]:.4g}" for name in names))
    return table
