"""The report as one HTML file that opens offline: leaderboards, comparisons, and every search in figures.

The file is page.html, filled in by Jinja with page.css, page.js and plotly's own script, which it carries along.
"""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import pandas as pd
import plotly.io
from jinja2 import Environment
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from cifar_tune.report import figures
from cifar_tune.report.columns import (
    GROUPS,
    LEADERBOARD,
    NOTHING,
    Column,
    TrialColumn,
    constant_columns,
    find_column,
    is_numeric,
    varying_columns,
)
from cifar_tune.report.comparison import compare_projects, grouped
from cifar_tune.report.figures import MIN_WIDTH, Figure, Searched
from cifar_tune.report.findings import Findings
from cifar_tune.report.leaderboard import TASK, footnotes, leaderboard
from cifar_tune.report.pruning import pruning_by_rung
from cifar_tune.report.sentences import pruning_caption, pruning_sentence, told_cost, told_difference, told_search
from cifar_tune.report.text import PRUNING_HEADERS, pruning_rows
from cifar_tune.report.timing import describe_time
from cifar_tune.trials.trial import COMPLETE_STATES, Trial

MAX_ROWS = 1000  # of a leaderboard on the page


@dataclass(frozen=True)
class Drawn:
    """A figure as the page has it, or what is said in its place; sizes in pixels."""

    json: Markup | None = None
    height: int | None = None
    width: int | None = None  # at least: a narrower screen scrolls
    said: str = ""


@dataclass(frozen=True)
class Header:
    """The head of a table's column."""

    title: str
    is_number: bool


@dataclass(frozen=True)
class Cell:
    """A cell; `value` is what the page sorts by where the text does not say it."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """A row; `state` and `kind` are a trial's, for the filter and the style."""

    cells: list[Cell]
    state: str | None = None
    kind: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table of the page."""

    columns: list[Header]
    rows: list[Row]


def render_page(found: Findings, columns: Sequence[TrialColumn] = LEADERBOARD) -> str:
    """The whole page."""
    folder = files("cifar_tune.report")
    read = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")}
    searches = found.searches
    frame = leaderboard(searches, found.confirmations, columns)
    names = list(searches)
    template = Environment(autoescape=True, trim_blocks=True).from_string(read["page.html"])
    return template.render(
        title=names[0] if len(names) == 1 else f"{len(names)} searches",
        version=version("cifar-tune"),
        made_at=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        css=Markup(read["page.css"]),
        js=Markup(read["page.js"]),
        plotly=Markup(get_plotlyjs()),
        tasks=[
            _task(index, task, rows, searches, columns)
            for index, (task, rows) in enumerate(frame.groupby(TASK, dropna=False, sort=False))
        ],
        searches=[
            _search(index, Searched(name, trials), told_search(found, name))
            for index, (name, trials) in enumerate(searches.items())
        ],
        projects=_comparison(compare_projects(found)),
        notes=[_with_code(note) for note in footnotes(frame)],
    )


def _task(
    index: int,
    task: tuple[Any, ...],
    rows: pd.DataFrame,
    searches: Mapping[str, Sequence[Trial]],
    columns: Sequence[TrialColumn],
) -> dict[str, Any]:
    """What may be compared: a data set and a number of training images."""
    dataset, images = task[0], None if pd.isna(task[1]) else int(task[1])
    title = f"Leaderboard on {dataset}" + (f", {images:,} training images" if images else "")
    baselines = {(t.search, t.number) for found in searches.values() for t in found if t.is_baseline}
    same = [(column, rows[column.name].iloc[0]) for column in constant_columns(rows, columns)]
    groups = grouped(rows, "model", "schedule")
    return {
        "id": f"leaderboard-{index}",
        "title": title,
        "states": list(dict.fromkeys(rows["state"])),
        "leaderboard": _leaderboard(rows, baselines, columns),
        "same": ", ".join(column.describe(value) for column, value in same if column.name not in TASK),
        "left_out": _left_out(len(rows)),
        "comparison": _comparison(groups.drop(columns=TASK)),
        "comparison_figure": _drawn(figures.comparison(groups)),
    }


def _left_out(num_rows: int) -> str:
    if num_rows <= MAX_ROWS:
        return ""
    return f"The best {MAX_ROWS:,} of {num_rows:,} trials; report --format csv has all."


def _search(index: int, searched: Searched, said: str) -> dict[str, Any]:
    name, trials = searched.name, searched.trials
    rungs = pruning_by_rung(trials)
    pruning = [[Cell(text) for text in row] for row in pruning_rows(rungs)]
    columns = [Header(header, is_number=False) for header in PRUNING_HEADERS]
    stopped = pruning_sentence(trials, rungs)
    return {
        "id": f"search-{index}",
        "name": name,
        "headline": _unbroken(said),
        "difference": told_difference(trials),
        "cost": told_cost(trials),
        "drawn": _sampled(searched),
        "lacks": searched.lacks,
        "learning_curves": _drawn(figures.learning_curves(searched)),
        "history": _drawn(figures.history(searched)),
        "importances": _drawn(figures.importances(searched)),
        "slices": [{"name": of, "figure": _drawn(figure)} for of, figure in figures.slices(searched).items()],
        "parallel": _drawn(figures.parallel_coordinates(searched)),
        "costs": [{"name": of, "figure": _drawn(figure)} for of, figure in figures.costs(searched).items()],
        "pruning_said": [stopped] if stopped else [],
        "pruning": PageTable(columns, [Row(cells) for cells in pruning] if stopped else []),
        "pruning_caption": pruning_caption(trials),
        "time": _unbroken(describe_time(searched.spans)),
        "timeline": _drawn(figures.timeline(searched)),
    }


def _unbroken(sentence: str) -> str:
    """No line ends between a number and its sign."""
    return sentence.replace(" %", "\u00a0%")


def _with_code(sentence: str) -> Markup:
    """What stands between backticks as code."""
    parts = [escape(part) for part in sentence.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts))


def _sampled(searched: Searched) -> str:
    if len(searched.drawn) == len(searched.trials):
        return ""
    return (
        f"The figures show {len(searched.drawn):,} of {len(searched.trials):,} trials: the baselines, the best, and "
        f"others by lot. Sentences and tables count all."
    )


def _leaderboard(frame: pd.DataFrame, baselines: Set[tuple[str, int]], columns: Sequence[TrialColumn]) -> PageTable:
    """The first rows: what a trial found, then what it is, then what it cost."""
    varying = sorted(varying_columns(frame, columns), key=lambda column: GROUPS.index(column.group))
    shown = frame.head(MAX_ROWS)
    table = _table(shown, varying)
    rows = []
    for row, plain in zip(shown.to_dict("records"), table.rows, strict=True):
        is_baseline = (row["search"], row["trial"]) in baselines
        kind = "baseline" if is_baseline else "" if row["state"] in COMPLETE_STATES else "cut"
        rows.append(Row(plain.cells, str(row["state"]), kind))
    return PageTable(table.columns, rows)


def _table(frame: pd.DataFrame, columns: Sequence[Column]) -> PageTable:
    """These columns of the frame."""
    headers = [Header(column.title, is_numeric(frame[column.name])) for column in columns]
    cells = [
        [_cell(column, value, is_number=header.is_number) for value in frame[column.name]]
        for column, header in zip(columns, headers, strict=True)
    ]
    return PageTable(headers, [Row(list(row)) for row in zip(*cells, strict=True)])


def _cell(column: Column, value: Any, *, is_number: bool) -> Cell:  # noqa: ANN401 - of a frame
    text = column.text(value)
    return Cell(text, float(value) if is_number and text != NOTHING else None)


def _comparison(frame: pd.DataFrame) -> PageTable:
    return _table(frame, [find_column(str(name)) for name in frame.columns])


def _drawn(figure: Figure) -> Drawn:
    """As JSON that may stand in a script element; the page brings the colours of text and grid."""
    if isinstance(figure, str):
        return Drawn(said=figure)
    figure.update_layout(template=None)
    document = json.loads(plotly.io.to_json(figure, validate=False))
    document.get("layout", {}).pop("template", None)
    text = json.dumps(document, separators=(",", ":")).replace("<", "\\u003c")
    return Drawn(Markup(text), figure.layout.height, (figure.layout.meta or {}).get(MIN_WIDTH))
