"""The report as text: a terminal's tables, csv, json and markdown.

The sentences around the tables are in sentences.py, one trial in full in trial_sheet.py.
"""

import json
import sys
from collections.abc import Hashable, Mapping, Sequence, Set
from typing import Any, Literal, TextIO

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
from cifar_tune.report.leaderboard import eligible, footnotes, leaderboard, task_columns
from cifar_tune.report.pruning import RungFindings, any_let_through, pruning_by_rung
from cifar_tune.report.sentences import describe_search, pruning_caption, pruning_sentence
from cifar_tune.trials.trial import Trial

Format = Literal["table", "csv", "json", "markdown"]

PADDING = 2  # between columns
NARROW = 100  # characters; a table that does not fit into fewer is written as a list
MAX_ROWS = 500  # of a table in a terminal; to draw more takes longer than to rank them


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
    notes = [f"columns that do not fit: {', '.join(left_out)}"] if left_out else []
    if len(rows) < len(frame):
        notes.append(f"the best {len(rows):,} of {len(frame):,} trials; `report --format csv` has all")
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
        return [pairs_table(f"\n{title}, {i} of {len(rows)}", _named(row)) for i, row in enumerate(rows, start=1)]
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
    """A console for stdout or a file: as wide as a terminal, wide elsewhere; what goes into a file has no colour."""
    in_colour = None if file is sys.stdout else False  # None: as the terminal and the environment have it
    return Console(file=file, width=None if file.isatty() else 160, force_terminal=in_colour)


def render(findings: Findings, width: int) -> list[Table | Text]:
    """The report for a terminal of `width` characters: a table for each task, then sentences on each search."""
    searches = findings.searches
    frame = leaderboard(searches, findings.confirmations)
    title = next(iter(searches)) if len(searches) == 1 else "leaderboard"
    tasks = frame.groupby(task_columns(frame), dropna=False)
    tables = [as_table(task, title, width, limit=MAX_ROWS) for _, task in tasks]
    parts: list[Table | Text] = [*tables]
    for name, trials in searches.items():
        parts += [Text(f"\n{name}: {' '.join(describe_search(findings, name))}"), *describe_pruning(trials)]
    return [*parts, *(Text(f"\n{note}.", style="dim") for note in footnotes(frame))]


def describe_pruning(trials: Sequence[Trial]) -> list[Table | Text]:
    """What stopping trials early saved and risked: a sentence and a table of rungs; nothing where none was stopped."""
    rungs = pruning_by_rung(trials)
    sentence = pruning_sentence(trials, rungs)
    if sentence is None:
        return []
    table = Table(caption=pruning_caption(trials, rungs), caption_justify="left", box=None, pad_edge=False)
    rows = pruning_rows(rungs)
    for header in rows[0]:
        justify: Literal["left", "right"] = "left" if header == "schedules" else "right"
        table.add_column(header.replace(" ", "\n"), justify=justify, header_style="bold")
    for row in rows:
        table.add_row(*row.values())
    return [Text(f"\n{sentence}"), table]


def pruning_rows(rungs: Sequence[RungFindings]) -> list[dict[str, str]]:
    """The cells by header for each rung of each group of schedules; "missed" only where trials were let through."""
    rows, has_missed = [], any_let_through(rungs)
    for rung in rungs:
        correlation = NOTHING if rung.rank_correlation is None else f"{rung.rank_correlation:.2f}"
        missed = NOTHING if rung.estimated_missed is None else f"about {rung.estimated_missed:.1f}"
        cells = {
            "rung": f"{rung.fraction:.3g}",
            "schedules": ", ".join(rung.schedules) + (" (phase 2)" if rung.num_phases > 1 else ""),
            "stopped": str(rung.num_stopped),
            "epochs saved": f"{rung.epochs_saved:,}",
            "seconds saved": f"{rung.seconds_saved:,.0f}",
            "rank correlation": f"{correlation} (n={rung.num_ranked})",
        }
        rows.append(cells | ({"missed": f"{missed} (n={rung.num_let_through})"} if has_missed else {}))
    return rows


def pairs_table(title: str, values: Mapping[str, Any], searched: Set[str] = frozenset()) -> Table:
    """Names and values below one another; `searched` names are marked."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    for name, value in values.items():
        table.add_row(name, format_value(name, value), "searched" if name in searched else "")
    return table
