"""Figures of how scores depend on the sampled values: importances, scores over each value, parallel coordinates.

What a figure is, and what all figures share, is in figures.py.
"""

import random
import warnings
from collections.abc import Sequence

import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.visualization import plot_parallel_coordinate
from plotly.colors import sample_colorscale

from cifar_tune.report.figures import (
    BASELINE_MARK,
    BLUE,
    GREY,
    MIN_WIDTH,
    ORANGE,
    PERCENT,
    PRUNED_MARK,
    DrawnSearch,
    Figure,
    as_study,
)
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_count

MIN_RANKED = 20  # complete trials, to tell which values go with the score
NUM_HALVES, MAX_HALF = 20, 300  # random halves of these trials that show the uncertainty; the most trials in one
FROM_LOW_TO_HIGH = [[0.0, "#9A9A9A"], [0.5, "#4A90B8"], [1.0, "#D55E00"]]  # visible on white and on black


def importances(search: DrawnSearch) -> Figure:
    """How much of what separates the best trials from the others goes with each value, and how uncertain that is.

    The line at a bar holds the share for nine of ten random halves of the complete trials, or of MAX_HALF of them where
    a half would be more.
    """
    complete = [trial for trial in search.trials if trial.is_complete]
    if search.obstacle:
        return search.obstacle
    if len(complete) < MIN_RANKED:
        return f"Only {format_count(len(complete), 'trial is', 'trials are')} complete; this needs {MIN_RANKED}."
    if len({trial.score for trial in complete}) == 1:
        return "All complete trials have the same score."
    every = _shares(complete)
    if not every:
        return "Optuna cannot tell which values go with the scores."
    shares = {name: share for name, share in every.items() if name in search.varied}
    if not sum(shares.values()):
        return "No value goes with the scores of the complete trials."
    names = list(reversed(shares))
    halves = _shares_of_halves(complete)
    inner = {name: sorted(half.get(name, 0.0) for half in halves)[1:-1] or [shares[name]] for name in names}
    figure = go.Figure(
        go.Bar(
            x=[shares[name] for name in names],
            y=[f"{name} (n={sum(name in trial.params for trial in complete)})" for name in names],
            error_x={
                "array": [max(0.0, inner[name][-1] - shares[name]) for name in names],
                "arrayminus": [max(0.0, shares[name] - inner[name][0]) for name in names],
                "color": ORANGE,
            },
            orientation="h",
            marker={"color": BLUE},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.update_layout(xaxis={"title": "importance", "tickformat": ".0%"}, height=120 + 28 * len(names))
    figure.update_yaxes(automargin=True)
    return figure


def _shares_of_halves(trials: Sequence[Trial]) -> list[dict[str, float]]:
    """The importances over random halves of the trials, the same ones each time."""
    rng, size = random.Random(0), min(len(trials) // 2, MAX_HALF)
    halves = [_shares(rng.sample(list(trials), size)) for _ in range(NUM_HALVES)]
    return [half for half in halves if half]


def _shares(trials: Sequence[Trial]) -> dict[str, float]:
    """Optuna's importances by name, which add up to 1; none where it cannot tell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the evaluator is new in Optuna
            return get_param_importances(as_study(trials), evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):
        return {}


def slices(search: DrawnSearch) -> dict[str, Figure]:
    """The scores over the values of each sampled name, with the baseline marked."""
    return {} if search.obstacle else {name: _slice(search, name) for name in search.varied}


def _slice(search: DrawnSearch, name: str) -> go.Figure:
    """One slice; not Optuna's own, whose points do not say which trial they are."""
    sampling = [trial for trial in search.drawn if name in trial.params and trial.curve]
    range_ = sampling[0].ranges[name]
    is_choice = isinstance(range_, CategoricalDistribution)
    groups = {
        "pruned": (PRUNED_MARK, [trial for trial in sampling if trial.state == "pruned"]),
        "complete": ({"color": BLUE}, [trial for trial in sampling if trial.is_complete and not trial.is_baseline]),
        "baseline": (BASELINE_MARK, [trial for trial in sampling if trial.is_complete and trial.is_baseline]),
    }
    figure = go.Figure()
    for state, (marker, trials) in groups.items():
        figure.add_scatter(
            x=[_as_text(trial.params[name]) if is_choice else trial.params[name] for trial in trials],
            y=[trial.score for trial in trials],
            text=[trial.label for trial in trials],
            mode="markers",
            marker=marker,
            hovertemplate=f"%{{text}}, {state}<br>{name}=%{{x}}<br>%{{y:.2%}}<extra></extra>",
        )
    figure.update_layout(
        xaxis={"title": name, **_axis(range_)},
        yaxis={"title": search.score, "tickformat": PERCENT},
        height=280,
        showlegend=False,
        hovermode="closest",
    )
    return figure


def _axis(range_: BaseDistribution) -> dict[str, object]:
    """The axis of a value's range; a choice has a place for every option, also one that no trial sampled."""
    if isinstance(range_, CategoricalDistribution):
        options = [_as_text(option) for option in range_.choices]
        ends = [-0.5, len(options) - 0.5]
        return {"type": "category", "categoryorder": "array", "categoryarray": options, "range": ends}
    return {"type": "log", "tickangle": 0} if getattr(range_, "log", False) else {"type": "linear", "nticks": 6}


def _as_text(value: object) -> str:
    """An option of a choice; plotly reads texts as HTML."""
    return str(value).replace("&", "&amp;").replace("<", "&lt;")


def parallel_coordinates(search: DrawnSearch) -> Figure:
    """A line through the values of each complete trial."""
    if search.obstacle:
        return search.obstacle
    figure = plot_parallel_coordinate(as_study(search.complete), params=search.varied, target_name=search.score)
    *lines, scale = figure.data
    scores = [float(line.customdata[0][1]) for line in lines]
    low, spread = min(scores), (max(scores) - min(scores)) or 1.0
    for line, score in zip(lines, scores, strict=True):  # Optuna's palest lines cannot be seen on white
        line.line.color = sample_colorscale(FROM_LOW_TO_HIGH, (score - low) / spread)[0]
        line.opacity = 0.8
    scale.marker.colorscale = FROM_LOW_TO_HIGH
    order = sorted(range(len(lines)), key=scores.__getitem__)
    figure.data = [*(lines[i] for i in order), scale]  # the best on top
    figure.layout.xaxis.ticktext = [search.score, *sorted(search.varied)]  # Optuna shortens the names
    figure.update_annotations(font={"color": GREY})
    width = 88 * (1 + len(search.varied))
    figure.update_layout(title=None, plot_bgcolor=None, height=450, meta={MIN_WIDTH: width})
    return figure
