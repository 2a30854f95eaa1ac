"""The figures of the report's page, as plotly has them: Optuna's own where it draws what is to be seen.

A figure that cannot be drawn is a sentence that says why. Colours are Okabe and Ito's, which colour-blind readers tell
apart; what matters differs in its mark or line as well. Text and grid get their colours from the page, light or dark.
"""

import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import optuna
import pandas as pd
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna.visualization import plot_optimization_history, plot_parallel_coordinate
from plotly.colors import sample_colorscale

from cifar_tune.report.leaderboard import best_baseline, best_trial, pareto_front
from cifar_tune.report.timing import PARTS, Part, spans, without_pauses
from cifar_tune.search.goal import CostName
from cifar_tune.search.schedulers import LET_THROUGH, RUNGS
from cifar_tune.search.trial import Trial
from cifar_tune.significance import sampling_margin

Figure: TypeAlias = go.Figure | str

MAX_DRAWN = 1000  # trials of a search in one figure
MIN_WIDTH = "min_width"  # of a layout's meta: pixels under which a figure cannot be read
MIN_RANKED = 10  # complete trials, to tell which values matter
BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#999999",
)
VERMILION = "#D55E00"  # the baseline's, in every figure
BASELINE_MARK = {"symbol": "star", "size": 14, "color": VERMILION}
MAX_RUNGS = 8  # that are drawn; trials of different lengths have many
PART_COLORS: Mapping[Part, str] = dict(zip(PARTS, (GREY, ORANGE, YELLOW, BLUE, SKY, PURPLE), strict=False))
FROM_LOW_TO_HIGH = [[0.0, "#A8C8DC"], [0.5, "#4A90B8"], [1.0, "#D55E00"]]  # visible on white and on black
COST_TITLES: Mapping[CostName, str] = {
    "seconds": "seconds of training",
    "num_parameters": "parameters",
    "num_macs": "multiply-adds of one image",
}


@dataclass(frozen=True)
class Searched:
    """One search to be drawn: all of its trials, of which at most MAX_DRAWN are in a figure."""

    name: str
    trials: Sequence[Trial]

    @cached_property
    def drawn(self) -> list[Trial]:
        """All, or the baselines, the best half and others by lot; by number."""
        if len(self.trials) <= MAX_DRAWN:
            return list(self.trials)
        first = sorted(self.trials, key=lambda t: (not t.is_baseline, not t.is_complete, -(t.val_accuracy or 0.0)))
        chosen = first[: MAX_DRAWN // 2] + random.Random(0).sample(first[MAX_DRAWN // 2 :], MAX_DRAWN // 2)
        return sorted(chosen, key=lambda trial: trial.number)

    @cached_property
    def complete(self) -> list[Trial]:
        """The drawn trials that were trained to their end."""
        return [trial for trial in self.drawn if trial.is_complete]

    @cached_property
    def all_complete(self) -> list[Trial]:
        """Those of all trials, drawn or not."""
        return [trial for trial in self.trials if trial.is_complete]

    @cached_property
    def varied(self) -> list[str]:
        """Sampled names of which the complete trials have two values or more."""
        values: dict[str, set[object]] = {}
        for trial in self.complete:
            for name, value in trial.params.items():
                values.setdefault(name, set()).add(value)
        return [name for name, found in values.items() if len(found) > 1]

    @property
    def lacks(self) -> str | None:
        """Why nothing can be said of how scores depend on values."""
        if len(self.complete) < 2:
            return f"{_count(len(self.complete), 'trial was', 'trials were')} trained to the end; this needs two."
        return None if self.varied else "The complete trials all have the same values."


def _as_study(trials: Iterable[Trial]) -> optuna.Study:
    """Complete trials for Optuna's figures, in memory; others have no score that compares."""
    study = optuna.create_study(direction="maximize")
    study.add_trials([_as_optuna_has_it(trial) for trial in trials])
    return study


def _as_optuna_has_it(trial: Trial) -> FrozenTrial:
    return create_trial(
        state=TrialState.COMPLETE,
        value=trial.val_accuracy,
        params=dict(trial.params),
        distributions=dict(trial.ranges),
    )


def _count(number: int, one: str, many: str) -> str:
    return f"1 {one}" if number == 1 else f"{number or 'No'} {many}"


def learning_curves(searched: Searched) -> Figure:
    """Validation accuracy by epoch of all trials, whose ends are marked where they were pruned; the rungs as lines."""
    shown = [trial for trial in searched.drawn if trial.curve]
    if not shown:
        return "No trial has trained an epoch."
    best = best_trial(searched.trials)
    kinds: list[tuple[str, Callable[[Trial], bool], str, float, str]] = [
        ("pruned", lambda t: t.state == "pruned", GREY, 1.0, "solid"),
        ("running or broken off", lambda t: t.state != "pruned" and not t.is_complete, ORANGE, 1.0, "dot"),
        ("completed", lambda t: t.is_complete and LET_THROUGH not in t.facts, SKY, 1.2, "solid"),
        ("let through a rung", lambda t: t.is_complete and LET_THROUGH in t.facts, PURPLE, 1.2, "dash"),
    ]
    figure = go.Figure()
    for name, belongs, color, width, dash in kinds:
        chosen = [trial for trial in shown if belongs(trial) and trial is not best and not trial.is_baseline]
        _add_curves(figure, name, chosen, {"color": color, "width": width, "dash": dash})
    _add_curves(figure, "baseline", [t for t in shown if t.is_baseline], {"color": VERMILION, "width": 3})
    if best is not None and not best.is_baseline:
        _add_curves(figure, f"best, trial {best.number}", [best], {"color": BLUE, "width": 3})
    pruned = [trial for trial in shown if trial.state == "pruned"]
    if pruned:
        figure.add_scatter(
            x=[trial.epochs for trial in pruned],
            y=[trial.accuracies[-1] for trial in pruned],
            text=[trial.label for trial in pruned],
            name="where it was pruned",
            mode="markers",
            marker={"symbol": "x", "size": 6, "color": GREY},
            hovertemplate="%{text}<br>pruned after epoch %{x} at %{y:.2%}<extra></extra>",
        )
    rungs = sorted({int(epoch) for trial in shown for epoch in trial.facts.get(RUNGS, {})})
    for epoch in rungs if len(rungs) <= MAX_RUNGS else []:
        figure.add_vline(x=epoch, line={"dash": "dot", "width": 1, "color": GREY})
    figure.update_layout(
        xaxis={"title": "epoch", "rangemode": "tozero", **_whole(max(trial.epochs for trial in shown))},
        yaxis={"title": "validation accuracy", "tickformat": ".0%"},
        hovermode="closest",
    )
    return figure


def _whole(largest: int) -> dict[str, object]:
    """Of an axis that counts: no ticks between whole numbers."""
    return {"dtick": 1} if largest <= 10 else {"tickformat": ",d"}


def _add_curves(figure: go.Figure, name: str, trials: Sequence[Trial], line: Mapping[str, object]) -> None:
    """All of them as one line with gaps, which draws faster than a line for each."""
    if not trials:
        return
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        x += [*range(1, trial.epochs + 1), None]
        y += [*(round(accuracy, 5) for accuracy in trial.accuracies), None]
        text += [trial.label] * (trial.epochs + 1)
    figure.add_scatter(
        x=x,
        y=y,
        text=text,
        name=name,
        mode="lines" if max(trial.epochs for trial in trials) > 1 else "markers",
        line=dict(line),
        hovertemplate="%{text}<br>epoch %{x}: %{y:.2%}<extra></extra>",
    )


def history(searched: Searched) -> Figure:
    """The score of each complete trial, and the best so far."""
    if not searched.complete:
        return "No trial was trained to its end."
    figure = plot_optimization_history(_as_study(searched.all_complete), target_name="validation accuracy")
    for trace in figure.data:  # which Optuna numbers anew, since the study holds complete trials alone
        numbers = [searched.all_complete[int(i)].number for i in trace.x]
        trace.update(x=numbers, line={"shape": "hv"}, hovertemplate="trial %{x}: %{y:.2%}<extra></extra>")
    whole = _whole(searched.all_complete[-1].number)
    figure.update_layout(title=None, xaxis={"title": "trial", **whole}, yaxis={"tickformat": ".1%"})
    figure.for_each_trace(lambda trace: trace.update(name=trace.name.replace("Best Value", "best so far")))
    baseline = best_baseline(searched.complete)
    if baseline is not None and baseline.val_accuracy is not None:
        margin = sampling_margin(baseline.val_accuracy, baseline.val_accuracy, baseline.recipe.num_val_images)
        low, high = baseline.val_accuracy - margin, baseline.val_accuracy + margin
        figure.add_hrect(low, high, fillcolor=VERMILION, opacity=0.12, line_width=0, layer="below")
        figure.add_hline(y=baseline.val_accuracy, line={"dash": "dash", "color": VERMILION})
    return figure


def parallel_coordinates(searched: Searched) -> Figure:
    """A line through the values of each complete trial."""
    if searched.lacks:
        return searched.lacks
    figure = plot_parallel_coordinate(_as_study(searched.complete), params=searched.varied, target_name="accuracy")
    *lines, scale = figure.data
    scores = [float(line.customdata[0][1]) for line in lines]
    low, spread = min(scores), (max(scores) - min(scores)) or 1.0
    for line, score in zip(lines, scores, strict=True):  # Optuna's palest lines cannot be seen on white
        line.line.color = sample_colorscale(FROM_LOW_TO_HIGH, (score - low) / spread)[0]
    scale.marker.colorscale = FROM_LOW_TO_HIGH
    figure.update_annotations(font={"color": GREY})
    width = 88 * (1 + len(searched.varied))
    figure.update_layout(title=None, plot_bgcolor=None, height=450, meta={MIN_WIDTH: width})
    return figure


def importances(searched: Searched) -> Figure:
    """How much of what separates the best trials from the others goes with each value."""
    if searched.lacks or len(searched.complete) < MIN_RANKED:
        return (
            searched.lacks
            or f"Only {len(searched.complete)} trials are complete; fewer than {MIN_RANKED} tell nothing."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the evaluator is new in Optuna
            found = get_param_importances(_as_study(searched.all_complete), evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError) as error:
        return f"Optuna cannot tell: {error}."
    found = {name: share for name, share in found.items() if name in searched.varied}
    if not found or not sum(found.values()):
        return "No value goes with the scores of the complete trials."
    names = list(reversed(found))
    figure = go.Figure(
        go.Bar(
            x=[found[name] for name in names],
            y=names,
            orientation="h",
            marker={"color": BLUE},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.update_layout(xaxis={"title": "importance", "tickformat": ".0%"}, height=120 + 28 * len(names))
    figure.update_yaxes(automargin=True)
    return figure


def slices(searched: Searched) -> dict[str, Figure]:
    """For each sampled name the scores over its values, with the baseline marked."""
    return {} if searched.lacks else {name: _slice(searched, name) for name in searched.varied}


def _slice(searched: Searched, name: str) -> go.Figure:
    """Not Optuna's, whose points do not say which trial they are."""
    having = [trial for trial in searched.complete if name in trial.params]
    range_ = having[0].ranges[name]
    is_choice = isinstance(range_, CategoricalDistribution)
    figure = go.Figure()
    for role, marker in (("trial", {"color": BLUE}), ("baseline", BASELINE_MARK)):
        chosen = [trial for trial in having if trial.is_baseline == (role == "baseline")]
        figure.add_scatter(
            x=[str(trial.params[name]) if is_choice else trial.params[name] for trial in chosen],
            y=[trial.val_accuracy for trial in chosen],
            text=[trial.label for trial in chosen],
            mode="markers",
            marker=marker,
            hovertemplate="%{text}<br>%{x}: %{y:.2%}<extra></extra>",
        )
    axis: dict[str, object] = {"type": "log" if getattr(range_, "log", False) else "linear", "nticks": 6}
    if isinstance(range_, CategoricalDistribution):
        axis = {"type": "category", "categoryorder": "array", "categoryarray": [str(each) for each in range_.choices]}
    figure.update_layout(
        xaxis={"title": name, **axis},
        yaxis={"title": "accuracy", "tickformat": ".0%"},
        height=280,
        showlegend=False,
        hovermode="closest",
    )
    return figure


def costs(searched: Searched) -> dict[CostName, Figure]:
    """Accuracy against what a trial costs, with the trials that no other beats in both; costs that vary."""
    found: dict[CostName, Figure] = {}
    complete = [trial for trial in searched.trials if trial.counts]
    for cost, title in COST_TITLES.items():
        priced = [(price, trial) for trial in complete if (price := trial.cost(cost)) is not None]
        if len({price for price, _ in priced}) < 2:
            continue
        front = pareto_front(complete, cost)
        drawn = {trial.number for trial in searched.drawn}
        figure = go.Figure()
        _add_priced(figure, "trials", [t for _, t in priced if t.number in drawn and not t.is_baseline], cost)
        _add_priced(figure, "baseline", [t for _, t in priced if t.is_baseline], cost)
        figure.add_scatter(
            x=[trial.cost(cost) for trial in front],
            y=[trial.val_accuracy for trial in front],
            name="Pareto front",
            mode="lines+markers",
            line={"shape": "hv", "color": GREEN},
            marker={"size": 9, "symbol": "diamond-open"},
            text=[trial.label for trial in front],
            hovertemplate="%{text}, on the front<br>%{x:,.4~g}: %{y:.2%}<extra></extra>",
        )
        figure.update_layout(
            xaxis={"title": title, **({} if cost == "seconds" else {"tickformat": "~s"})},
            yaxis={"title": "validation accuracy", "tickformat": ".1%"},
            hovermode="closest",
        )
        found[cost] = figure
    return found


def _add_priced(figure: go.Figure, name: str, trials: Sequence[Trial], cost: CostName) -> None:
    mark = BASELINE_MARK if name == "baseline" else {"color": SKY, "size": 7}
    figure.add_scatter(
        x=[trial.cost(cost) for trial in trials],
        y=[trial.val_accuracy for trial in trials],
        text=[trial.label for trial in trials],
        name=name,
        mode="markers",
        marker=mark,
        hovertemplate="%{text}<br>%{x:,.4~g}: %{y:.2%}<extra></extra>",
    )


def timeline(searched: Searched) -> Figure:
    """What each worker did when."""
    drawn = {trial.number for trial in searched.drawn}
    moved, pauses = without_pauses(spans(searched.trials))
    found = [span for span in moved if span.trial in drawn]
    if not found:
        return "The workers of this search measured no times; it was run by an older version."
    workers = {worker: f"worker {i}" for i, worker in enumerate(dict.fromkeys(span.worker for span in found), start=1)}
    figure = go.Figure()
    for part in PARTS:
        own = [span for span in found if span.part == part]
        if own:
            figure.add_bar(
                x=[round(span.seconds, 3) for span in own],
                y=[workers[span.worker] for span in own],
                base=[round(span.start, 3) for span in own],
                text=[f"trial {span.trial}" for span in own],
                textposition="none",
                name=part,
                orientation="h",
                marker={"color": PART_COLORS[part], "line": {"width": 0}},
                hovertemplate=f"%{{text}}: {part}, %{{x:.2f}} s<extra></extra>",
            )
    for pause in pauses:
        figure.add_vline(x=pause.after, line={"dash": "dash", "color": VERMILION})
    figure.update_layout(
        barmode="overlay",
        xaxis={"title": "seconds, without pauses" if pauses else "seconds"},
        yaxis={"autorange": "reversed"},
        height=160 + 30 * len(workers),
        hovermode="closest",
    )
    return figure


def comparison(groups: pd.DataFrame) -> Figure:
    """The best score of each architecture with each schedule, from comparison.py's groups by both, of one task."""
    complete = groups[groups["completed"] > 0].infer_objects()
    if len(complete) < 2:
        return "Fewer than two pairs of an architecture and a schedule have a complete trial, so nothing is compared."
    wide = complete.pivot_table(index="model", columns="schedule", values="best")
    figure = go.Figure(
        go.Heatmap(
            z=wide.to_numpy(),
            x=list(wide.columns),
            y=list(wide.index),
            colorscale="Cividis",
            texttemplate="%{z:.1%}",
            hoverongaps=False,
            hovertemplate="%{y}, %{x}: %{z:.2%}<extra></extra>",
            showscale=False,
        )
    )
    figure.update_layout(
        xaxis={"title": "schedule"},
        yaxis={"title": "architecture"},
        height=200 + 50 * len(wide),
        meta={MIN_WIDTH: 140 + 64 * len(wide.columns)},
    )
    figure.update_yaxes(automargin=True)
    return figure
