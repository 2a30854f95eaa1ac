"""The figures of the report's page in plotly: how a search went, what its trials cost, where its workers' time went.

A figure that cannot be drawn is a sentence that says why. Colours are Okabe and Ito's, which colour-blind readers tell
apart, and what matters differs in its mark or line as well. Text and grid get their colours from the page, light or
dark. The figures of how scores depend on sampled values are in value_figures.py.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import optuna
import pandas as pd
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna.visualization import plot_optimization_history

from cifar_tune.evaluation.significance import sampling_margin
from cifar_tune.report.timing import PARTS, Part, Span, spans, without_pauses
from cifar_tune.trials.facts import LET_THROUGH, RUNGS
from cifar_tune.trials.goal import CostName
from cifar_tune.trials.ranking import best_baseline, best_trial, pareto_front
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_count, score_title

Figure: TypeAlias = go.Figure | str

MAX_DRAWN = 1000  # trials of a search in one figure
PERCENT = ".1~%"  # tick format of axes: a decimal where ticks need it
MIN_WIDTH = "min_width"  # key of a layout's meta: pixels under which a figure cannot be read
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
OVER_MARK = {"symbol": "circle-open", "size": 7, "color": GREY}
PRUNED_MARK = {"symbol": "x", "size": 6, "color": GREY}
MAX_RUNGS = 8  # that are drawn; trials of different lengths have many
PART_COLORS: Mapping[Part, str] = dict(zip(PARTS, (GREY, ORANGE, YELLOW, BLUE, SKY, PURPLE), strict=False))
COST_TITLES: Mapping[CostName, str] = {
    "seconds": "seconds of training and validation",
    "num_parameters": "parameters",
    "num_macs": "multiply-adds per image",
}


@dataclass(frozen=True)
class DrawnSearch:
    """A search for the figures: all of its trials, of which a figure shows at most MAX_DRAWN."""

    name: str
    trials: Sequence[Trial]

    @cached_property
    def drawn(self) -> list[Trial]:
        """The trials in the figures by number: all, or the baselines, the best half and a random sample of the rest."""
        if len(self.trials) <= MAX_DRAWN:
            return list(self.trials)
        first = sorted(self.trials, key=lambda t: (not t.is_baseline, not t.is_complete, -(t.score or 0.0)))
        sample = random.Random(0).sample(first[MAX_DRAWN // 2 :], MAX_DRAWN // 2)
        return sorted([*first[: MAX_DRAWN // 2], *sample], key=lambda trial: trial.number)

    @cached_property
    def complete(self) -> list[Trial]:
        """The drawn trials that were trained to their end."""
        return [trial for trial in self.drawn if trial.is_complete]

    @cached_property
    def eligible(self) -> list[Trial]:
        """The trials, drawn or not, that may be the best: complete and within the limits."""
        return [trial for trial in self.trials if trial.counts]

    @property
    def score(self) -> str:
        """What the trials are scored by, in words; without trials, the usual one."""
        return score_title(self.trials[0].goal.score) if self.trials else "accuracy"

    @cached_property
    def spans(self) -> list[Span]:
        """What the workers did when, for all trials."""
        return spans(self.trials)

    @cached_property
    def varied(self) -> list[str]:
        """The sampled names of which the complete trials have two values or more."""
        by_name: dict[str, set[object]] = {}
        for trial in self.complete:
            for name, value in trial.params.items():
                by_name.setdefault(name, set()).add(value)
        return [name for name, values in by_name.items() if len(values) > 1]

    @property
    def obstacle(self) -> str | None:
        """Why the figures of values cannot be drawn; None where they can."""
        if len(self.complete) < 2:
            return f"{format_count(len(self.complete), 'trial is', 'trials are')} complete; this needs two."
        return None if self.varied else "The complete trials all have the same values."


def as_study(trials: Iterable[Trial]) -> optuna.Study:
    """A study in memory, for Optuna's figures, of complete trials; others have no score that compares."""
    study = optuna.create_study(direction="maximize")
    study.add_trials([_as_frozen(trial) for trial in trials])
    return study


def _as_frozen(trial: Trial) -> FrozenTrial:
    return create_trial(
        state=TrialState.COMPLETE,
        value=trial.score,
        params=dict(trial.params),
        distributions=dict(trial.ranges),
    )


def learning_curves(search: DrawnSearch) -> Figure:
    """The validation score by epoch, with marks where trials were pruned, and the rungs as lines."""
    trained = [trial for trial in search.drawn if trial.curve]
    if not trained:
        return "No trial has trained an epoch."
    best = best_trial(search.trials)
    kinds: list[tuple[str, Callable[[Trial], bool], str, float, str]] = [
        ("pruned", lambda t: t.state == "pruned", GREY, 1.0, "solid"),
        ("running, paused or broken off", lambda t: t.state != "pruned" and not t.is_complete, ORANGE, 1.0, "dot"),
        ("completed", lambda t: t.is_complete and LET_THROUGH not in t.facts, SKY, 1.2, "solid"),
        ("let through a rung", lambda t: t.is_complete and LET_THROUGH in t.facts, PURPLE, 1.2, "dash"),
    ]
    figure = go.Figure()
    for name, belongs, color, width, dash in kinds:
        trials = [trial for trial in trained if belongs(trial) and trial is not best and not trial.is_baseline]
        _add_curves(figure, name, trials, {"color": color, "width": width, "dash": dash})
    _add_curves(figure, "baseline", [t for t in trained if t.is_baseline], {"color": VERMILION, "width": 3})
    if best is not None and not best.is_baseline:
        _add_curves(figure, f"best, trial {best.number}", [best], {"color": BLUE, "width": 3})
    _add_pruned_marks(figure, [trial for trial in trained if trial.state == "pruned"])
    last = max(trial.epochs for trial in trained)
    rungs = sorted({int(epoch) for trial in trained for epoch in trial.facts.get(RUNGS, {})})
    for epoch in rungs if len(rungs) <= MAX_RUNGS else []:
        figure.add_vline(x=epoch, line={"dash": "dot", "width": 1, "color": GREY})
    figure.update_layout(
        xaxis={"title": "epoch", "range": [0, 1.02 * last], **_whole(last)},
        yaxis={"title": f"validation {search.score}", "tickformat": PERCENT},
        hovermode="closest",
    )
    return figure


def _whole(largest: int) -> dict[str, object]:
    """The ticks of an axis that counts: none between whole numbers."""
    return {"dtick": 1} if largest <= 10 else {"tickformat": ",d"}


def _add_curves(figure: go.Figure, name: str, trials: Sequence[Trial], line: Mapping[str, object]) -> None:
    """Add all of them as one line with gaps, which draws faster than a line for each."""
    if not trials:
        return
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        x += [*range(1, trial.epochs + 1), None]
        y += [*(round(score, 5) for score in trial.scores), None]
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


def _add_pruned_marks(figure: go.Figure, pruned: Sequence[Trial]) -> None:
    if not pruned:
        return
    figure.add_scatter(
        x=[trial.epochs for trial in pruned],
        y=[trial.scores[-1] for trial in pruned],
        text=[trial.label for trial in pruned],
        name="where it was pruned",
        mode="markers",
        marker=PRUNED_MARK,
        hovertemplate="%{text}<br>pruned after epoch %{x} at %{y:.2%}<extra></extra>",
    )


def history(search: DrawnSearch) -> Figure:
    """The score of each eligible trial, the best so far, and the baseline with its sampling error."""
    if not search.eligible:
        return "No trial is complete and within the limits."
    figure = plot_optimization_history(as_study(search.eligible), target_name=f"validation {search.score}")
    for trace in figure.data:  # Optuna numbers anew, since the study holds eligible trials alone
        numbers = [search.eligible[int(i)].number for i in trace.x]
        trace.update(x=numbers, line={"shape": "hv"}, hovertemplate="trial %{x}: %{y:.2%}<extra></extra>")
    whole = _whole(search.eligible[-1].number)
    figure.update_layout(title=None, xaxis={"title": "trial", **whole}, yaxis={"tickformat": PERCENT})
    figure.for_each_trace(lambda trace: trace.update(name=trace.name.replace("Best Value", "best so far")))
    baseline = best_baseline(search.complete)
    if baseline is not None and baseline.score is not None and baseline.score_error is not None:
        margin = sampling_margin(baseline.score_error, baseline.score_error)
        low, high = baseline.score - margin, baseline.score + margin
        figure.add_hrect(low, high, fillcolor=VERMILION, opacity=0.12, line_width=0, layer="below")
        figure.add_hline(y=baseline.score, line={"dash": "dash", "color": VERMILION})
    return figure


def costs(search: DrawnSearch) -> dict[CostName, Figure]:
    """The score against each cost that varies, with the Pareto front."""
    figures: dict[CostName, Figure] = {}
    for cost in COST_TITLES:
        priced = [trial for trial in search.complete if trial.cost(cost) is not None]
        if len({trial.cost(cost) for trial in priced}) > 1:
            figures[cost] = _cost_figure(search, priced, cost)
    return figures


def _cost_figure(search: DrawnSearch, priced: Sequence[Trial], cost: CostName) -> go.Figure:
    front = pareto_front(search.trials, cost)
    others = [trial for trial in priced if not trial.is_baseline]
    figure = go.Figure()
    _add_priced(figure, "trials", [t for t in others if t.counts], {"color": SKY, "size": 7}, cost)
    _add_priced(figure, "over a limit", [t for t in others if not t.counts], OVER_MARK, cost)
    _add_priced(figure, "baseline", [t for t in priced if t.is_baseline], BASELINE_MARK, cost)
    limit = search.trials[0].goal.limits.by_cost.get(cost)
    if limit is not None:
        figure.add_vline(x=limit, line={"dash": "dash", "color": GREY})
    figure.add_scatter(
        x=[trial.cost(cost) for trial in front],
        y=[trial.score for trial in front],
        name="Pareto front",
        mode="lines+markers",
        line={"shape": "hv", "color": GREEN},
        marker={"size": 9, "symbol": "diamond-open"},
        text=[trial.label for trial in front],
        hovertemplate="%{text}, on the front<br>%{x:,.4~g}: %{y:.2%}<extra></extra>",
    )
    figure.update_layout(
        xaxis={"title": COST_TITLES[cost], **({} if cost == "seconds" else {"tickformat": "~s"})},
        yaxis={"title": f"validation {search.score}", "tickformat": PERCENT},
        hovermode="closest",
    )
    return figure


def _add_priced(
    figure: go.Figure, name: str, trials: Sequence[Trial], mark: Mapping[str, object], cost: CostName
) -> None:
    if not trials:
        return
    figure.add_scatter(
        x=[trial.cost(cost) for trial in trials],
        y=[trial.score for trial in trials],
        text=[trial.label for trial in trials],
        name=name,
        mode="markers",
        marker=dict(mark),
        hovertemplate="%{text}<br>%{x:,.4~g}: %{y:.2%}<extra></extra>",
    )


def timeline(search: DrawnSearch) -> Figure:
    """What each worker did when."""
    drawn = {trial.number for trial in search.drawn}
    moved, pauses = without_pauses(search.spans)
    shown = [span for span in moved if span.trial in drawn]
    if not shown:
        return "No times were recorded: no trial finished an epoch, or an older version ran the trials."
    workers = {worker: f"worker {i}" for i, worker in enumerate(dict.fromkeys(span.worker for span in shown), start=1)}
    figure = go.Figure()
    for part in PARTS:
        own = [span for span in shown if span.part == part]
        if own:
            figure.add_bar(
                x=[round(span.seconds, 3) for span in own],
                y=[workers[span.worker] for span in own],
                base=[round(span.start, 3) for span in own],
                text=[f"trial {span.trial}: {part}, {span.seconds:.2f} s" for span in own],
                textposition="none",
                name=part,
                orientation="h",
                marker={"color": PART_COLORS[part], "line": {"width": 0}},
                hovertemplate="%{text}<extra></extra>",  # for a bar with a base, x is its end
            )
    for pause in pauses:
        figure.add_vline(x=pause.after, line={"dash": "dash", "color": VERMILION})
    figure.update_layout(
        barmode="overlay",
        xaxis={"title": "seconds, without pauses" if pauses else "seconds", "tickformat": ",d"},
        yaxis={"autorange": "reversed"},
        height=160 + 30 * len(workers),
        hovermode="closest",
    )
    return figure


def comparison(groups: pd.DataFrame) -> Figure:
    """The best score of each architecture with each schedule, from the groups by both, of one task (comparison.py)."""
    if (groups["completed"] > 0).sum() < 2:
        return "Fewer than two pairs of an architecture and a schedule have a complete trial, so nothing is compared."
    wide = groups.infer_objects().pivot(index="model", columns="schedule")
    figure = go.Figure(
        go.Heatmap(
            z=wide["best"].to_numpy(),
            x=list(wide["best"].columns),
            y=list(wide["best"].index),
            text=wide["completed"].to_numpy(),
            colorscale="Cividis",
            texttemplate="%{z:.1%}<br>of %{text}",
            hoverongaps=False,
            hovertemplate="%{y}, %{x}: %{z:.2%}, best of %{text} complete trials<extra></extra>",
            showscale=False,
        )
    )
    figure.update_layout(
        xaxis={"title": "schedule"},
        yaxis={"title": "architecture"},
        height=200 + 50 * len(wide),
        meta={MIN_WIDTH: 140 + 64 * len(wide["best"].columns)},
    )
    figure.update_yaxes(automargin=True)
    return figure
