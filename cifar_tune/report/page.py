"""The report as one HTML file that opens offline: leaderboards, comparisons, and every search in figures.

The file is page.html, filled in by Jinja with page.css, page.js and plotly's own script. Sentences are made in
sentences.py and timing.py, figures in figures.py and value_figures.py; the captions of figures are in page.html.
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
from cifar_tune.report.figures import (
    MIN_WIDTH,
    DrawnSearch,
    Figure,
    comparison,
    costs,
    history,
    learning_curves,
    timeline,
)
from cifar_tune.report.findings import Findings
from cifar_tune.report.leaderboard import TASK, footnotes, leaderboard, score_of, task_columns
from cifar_tune.report.pruning import pruning_by_rung
from cifar_tune.report.sentences import (
    describe_cost,
    describe_difference,
    describe_outcome,
    pruning_caption,
    pruning_sentence,
)
from cifar_tune.report.text import pruning_rows
from cifar_tune.report.timing import describe_time
from cifar_tune.report.value_figures import importances, parallel_coordinates, slices
from cifar_tune.trials.trial import COMPLETE_STATES, Trial
from cifar_tune.wording import score_title

MAX_ROWS = 1000  # of a leaderboard on the page


@dataclass(frozen=True)
class EmbeddedFigure:
    """A figure as the page has it, or the `reason` why there is none; sizes in pixels.

    On a screen that is narrower than `width` the figure scrolls.
    """

    json: Markup | None = None
    height: int | None = None
    width: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Header:
    """The head of a table's column."""

    title: str
    is_number: bool


@dataclass(frozen=True)
class Cell:
    """A cell; the page sorts by `value`, or by the text where there is none."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """A row; `state` (for the filter) and `kind` (for the style) are a trial's."""

    cells: list[Cell]
    state: str | None = None
    kind: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table of the page."""

    columns: list[Header]
    rows: list[Row]


def render_page(findings: Findings, columns: Sequence[TrialColumn] = LEADERBOARD) -> str:
    """The whole page."""
    folder = files("cifar_tune.report")
    html, css, js = (folder.joinpath(f"page.{ending}").read_text(encoding="utf-8") for ending in ("html", "css", "js"))
    searches = findings.searches
    frame = leaderboard(searches, findings.confirmations, columns)
    names = list(searches)
    projects = compare_projects(findings)
    template = Environment(autoescape=True, trim_blocks=True).from_string(html)
    return template.render(
        title=names[0] if len(names) == 1 else f"{len(names)} searches",
        version=version("cifar-tune"),
        made_at=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        css=Markup(css),
        js=Markup(js),
        plotly=Markup(get_plotlyjs()),
        tasks=[
            _task_section(index, task, rows, searches, columns)
            for index, (task, rows) in enumerate(frame.groupby(task_columns(frame), dropna=False, sort=False))
        ],
        searches=[
            _search_section(index, DrawnSearch(name, trials), describe_outcome(findings, name))
            for index, (name, trials) in enumerate(searches.items())
        ],
        projects=_comparison_table(projects) if projects["search"].notna().any() else None,
        notes=[_with_code(note) for note in footnotes(frame)],
    )


def _task_section(
    index: int,
    task: tuple[Any, ...],
    rows: pd.DataFrame,
    searches: Mapping[str, Sequence[Trial]],
    columns: Sequence[TrialColumn],
) -> dict[str, Any]:
    """The variables of a section on one task: a data set, a number of training images, a score."""
    dataset, images = task[0], None if pd.isna(task[1]) else int(task[1])
    title = f"Leaderboard on {dataset}" + (f", {images:,} training images" if images else "")
    score = score_of(rows)
    title += "" if score == "accuracy" else f", by {score_title(score)}"
    baselines = {(trial.search, trial.number) for trials in searches.values() for trial in trials if trial.is_baseline}
    same = [(column, rows[column.name].iloc[0]) for column in constant_columns(rows, columns)]
    groups = grouped(rows, "model", "schedule")
    return {
        "id": f"leaderboard-{index}",
        "title": title,
        "states": list(dict.fromkeys(rows["state"])),
        "leaderboard": _leaderboard(rows, baselines, columns),
        "same": ", ".join(column.describe(value) for column, value in same if column.name not in TASK),
        "left_out": _describe_left_out(len(rows)),
        "comparison": _comparison_table(groups.drop(columns=task_columns(groups))),
        "comparison_figure": _embed(comparison(groups)),
        "score": score_title(score),
    }


def _describe_left_out(num_rows: int) -> Markup:
    if num_rows <= MAX_ROWS:
        return Markup("")
    return _with_code(f"The best {MAX_ROWS:,} of {num_rows:,} trials; `report --format csv` has all.")


def _search_section(index: int, search: DrawnSearch, outcome: str) -> dict[str, Any]:
    """The variables of a section on one search."""
    trials = search.trials
    rungs = pruning_by_rung(trials)
    rung_rows = pruning_rows(rungs)
    saved = pruning_sentence(trials, rungs)
    return {
        "id": f"search-{index}",
        "name": search.name,
        "score": search.score,
        "headline": _unbroken(outcome),
        "difference": describe_difference(trials),
        "cost": describe_cost(trials),
        "sample": _describe_sample(search),
        "obstacle": search.obstacle,
        "learning_curves": _embed(learning_curves(search)),
        "history": _embed(history(search)),
        "importances": _embed(importances(search)),
        "slices": [{"name": name, "figure": _embed(figure)} for name, figure in slices(search).items()],
        "parallel": _embed(parallel_coordinates(search)),
        "costs": [{"name": name, "figure": _embed(figure)} for name, figure in costs(search).items()],
        "saved": saved,
        "rungs": PageTable(
            [Header(header, is_number=False) for header in next(iter(rung_rows), ())],
            [Row([Cell(text) for text in cells.values()]) for cells in rung_rows] if saved else [],
        ),
        "rungs_caption": pruning_caption(trials, rungs),
        "time": _unbroken(describe_time(search.spans)),
        "timeline": _embed(timeline(search)),
    }


def _unbroken(sentence: str) -> str:
    """The sentence without line breaks between a number and its sign."""
    return sentence.replace(" %", "\u00a0%")


def _with_code(sentence: str) -> Markup:
    """The sentence with the parts between backticks as code."""
    parts = [escape(part) for part in sentence.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts))


def _describe_sample(search: DrawnSearch) -> str:
    if len(search.drawn) == len(search.trials):
        return ""
    return (
        f"The figures show {len(search.drawn):,} of {len(search.trials):,} trials: the baselines, the best, and a "
        f"random sample of the others. Sentences and tables count all."
    )


def _leaderboard(frame: pd.DataFrame, baselines: Set[tuple[str, int]], columns: Sequence[TrialColumn]) -> PageTable:
    """The first rows, with baselines and incomplete trials marked; columns in the order of GROUPS."""
    varying = sorted(varying_columns(frame, columns), key=lambda column: GROUPS.index(column.group))
    shown = frame.head(MAX_ROWS)
    table = _table(shown, varying)
    rows = []
    for row, plain in zip(shown.to_dict("records"), table.rows, strict=True):
        is_baseline = (row["search"], row["trial"]) in baselines
        kind = "baseline" if is_baseline else "" if row["state"] in COMPLETE_STATES else "incomplete"
        rows.append(Row(plain.cells, str(row["state"]), kind))
    return PageTable(table.columns, rows)


def _comparison_table(frame: pd.DataFrame) -> PageTable:
    return _table(frame, [find_column(str(name)) for name in frame.columns])


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


def _embed(figure: Figure) -> EmbeddedFigure:
    """The figure as JSON that may stand in a script element; the page brings the colours of text and grid."""
    if isinstance(figure, str):
        return EmbeddedFigure(reason=figure)
    figure.update_layout(template=None)
    document = json.loads(plotly.io.to_json(figure, validate=False))
    document.get("layout", {}).pop("template", None)
    text = json.dumps(document, separators=(",", ":")).replace("<", "\\u003c")
    return EmbeddedFigure(Markup(text), figure.layout.height, (figure.layout.meta or {}).get(MIN_WIDTH))
