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

from cifar_tune.evaluation.significance import sampling_margin
from cifar_tune.report.timing import PARTS, Part, Span, spans, without_pauses
from cifar_tune.trials.facts import LET_THROUGH, RUNGS
from cifar_tune.trials.goal import CostName
from cifar_tune.trials.ranking import best_baseline, best_trial, pareto_front
from cifar_tune.trials.trial import Trial

Figure: TypeAlias = go.Figure | str

MAX_DRAWN = 1000  # trials of a search in one figure
PERCENT = ".1~%"  # of axes: a decimal where ticks need it
MIN_WIDTH = "min_width"  # of a layout's meta: pixels under which a figure cannot be read
MIN_RANKED = 20  # complete trials, to tell which values go with the score
NUM_HALVES, MAX_HALF = 20, 300  # random ones of these trials, that show how sure it is; of at most so many trials
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
FROM_LOW_TO_HIGH = [[0.0, "#9A9A9A"], [0.5, "#4A90B8"], [1.0, "#D55E00"]]  # visible on white and on black
COST_TITLES: Mapping[CostName, str] = {
    "seconds": "seconds of training and validation",
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
    def counting(self) -> list[Trial]:
        """Those of all trials, drawn or not, that may be the best: within the limits."""
        return [trial for trial in self.trials if trial.counts]

    @cached_property
    def spans(self) -> list[Span]:
        """What the workers did when, for all trials."""
        return spans(self.trials)

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
            marker=PRUNED_MARK,
            hovertemplate="%{text}<br>pruned after epoch %{x} at %{y:.2%}<extra></extra>",
        )
    last = max(trial.epochs for trial in shown)
    rungs = sorted({int(epoch) for trial in shown for epoch in trial.facts.get(RUNGS, {})})
    for epoch in rungs if len(rungs) <= MAX_RUNGS else []:
        figure.add_vline(x=epoch, line={"dash": "dot", "width": 1, "color": GREY})
    figure.update_layout(
        xaxis={"title": "epoch", "range": [0, 1.02 * last], **_whole(last)},
        yaxis={"title": "validation accuracy", "tickformat": PERCENT},
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
    if not searched.counting:
        return "No trial was trained to its end within the limits."
    figure = plot_optimization_history(_as_study(searched.counting), target_name="validation accuracy")
    for trace in figure.data:  # which Optuna numbers anew, since the study holds complete trials alone
        numbers = [searched.counting[int(i)].number for i in trace.x]
        trace.update(x=numbers, line={"shape": "hv"}, hovertemplate="trial %{x}: %{y:.2%}<extra></extra>")
    whole = _whole(searched.counting[-1].number)
    figure.update_layout(title=None, xaxis={"title": "trial", **whole}, yaxis={"tickformat": PERCENT})
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
        line.opacity = 0.8
    scale.marker.colorscale = FROM_LOW_TO_HIGH
    order = sorted(range(len(lines)), key=scores.__getitem__)
    figure.data = [*(lines[i] for i in order), scale]  # the best on top
    figure.layout.xaxis.ticktext = ["accuracy", *sorted(searched.varied)]  # which Optuna cuts off
    figure.update_annotations(font={"color": GREY})
    width = 88 * (1 + len(searched.varied))
    figure.update_layout(title=None, plot_bgcolor=None, height=450, meta={MIN_WIDTH: width})
    return figure


def importances(searched: Searched) -> Figure:
    """How much of what separates the best trials from the others goes with each value, and how sure that is.

    The line at a bar holds it for nine of ten random halves of the trials, or of MAX_HALF of them where there are more.
    """
    complete = [trial for trial in searched.trials if trial.is_complete]
    if searched.lacks or len(complete) < MIN_RANKED:
        return searched.lacks or f"Only {len(complete)} trials are complete; fewer than {MIN_RANKED} tell nothing."
    if len({trial.val_accuracy for trial in complete}) == 1:
        return "All complete trials have the same score."
    shares = _shares(complete)
    if not shares:
        return "Optuna cannot tell which values go with the scores."
    found = {name: share for name, share in shares.items() if name in searched.varied}
    if not sum(found.values()):
        return "No value goes with the scores of the complete trials."
    rng, size = random.Random(0), min(len(complete) // 2, MAX_HALF)
    halves = [half for _ in range(NUM_HALVES) if (half := _shares(rng.sample(complete, size)))]
    names = list(reversed(found))
    spans_ = {name: sorted(half.get(name, 0.0) for half in halves)[1:-1] or [found[name]] for name in names}
    figure = go.Figure(
        go.Bar(
            x=[found[name] for name in names],
            y=[f"{name} (n={sum(name in trial.params for trial in complete)})" for name in names],
            error_x={
                "array": [max(0.0, spans_[name][-1] - found[name]) for name in names],
                "arrayminus": [max(0.0, found[name] - spans_[name][0]) for name in names],
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


def _shares(trials: Sequence[Trial]) -> dict[str, float]:
    """Optuna's importances, by name; none where it cannot tell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the evaluator is new in Optuna
            return get_param_importances(_as_study(trials), evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):
        return {}


def slices(searched: Searched) -> dict[str, Figure]:
    """For each sampled name the scores over its values, with the baseline marked."""
    return {} if searched.lacks else {name: _slice(searched, name) for name in searched.varied}


def _slice(searched: Searched, name: str) -> go.Figure:
    """Not Optuna's, whose points do not say which trial they are."""
    having = [trial for trial in searched.drawn if name in trial.params and trial.curve]
    range_ = having[0].ranges[name]
    is_choice = isinstance(range_, CategoricalDistribution)
    groups = {
        "pruned": (PRUNED_MARK, [trial for trial in having if trial.state == "pruned"]),
        "complete": ({"color": BLUE}, [trial for trial in having if trial.is_complete and not trial.is_baseline]),
        "baseline": (BASELINE_MARK, [trial for trial in having if trial.is_complete and trial.is_baseline]),
    }
    figure = go.Figure()
    for state, (marker, chosen) in groups.items():
        figure.add_scatter(
            x=[_as_text(trial.params[name]) if is_choice else trial.params[name] for trial in chosen],
            y=[trial.val_accuracy for trial in chosen],
            text=[trial.label for trial in chosen],
            mode="markers",
            marker=marker,
            hovertemplate=f"%{{text}}, {state}<br>{name}=%{{x}}<br>%{{y:.2%}}<extra></extra>",
        )
    is_log = getattr(range_, "log", False)
    axis: dict[str, object] = {"type": "log", "tickangle": 0} if is_log else {"type": "linear", "nticks": 6}
    if isinstance(range_, CategoricalDistribution):
        choices = [_as_text(each) for each in range_.choices]
        axis = {"type": "category", "categoryorder": "array", "categoryarray": choices}
        axis["range"] = [-0.5, len(choices) - 0.5]  # those that no trial was given, too
    figure.update_layout(
        xaxis={"title": name, **axis},
        yaxis={"title": "accuracy", "tickformat": PERCENT},
        height=280,
        showlegend=False,
        hovermode="closest",
    )
    return figure


def _as_text(value: object) -> str:
    """Of a choice; plotly reads texts as HTML."""
    return str(value).replace("&", "&amp;").replace("<", "&lt;")


def costs(searched: Searched) -> dict[CostName, Figure]:
    """Accuracy against what a trial costs, with the trials that no other beats in both; costs that vary."""
    found: dict[CostName, Figure] = {}
    for cost, title in COST_TITLES.items():
        priced = [trial for trial in searched.complete if trial.cost(cost) is not None]
        if len({trial.cost(cost) for trial in priced}) < 2:
            continue
        front = pareto_front(searched.trials, cost)
        others = [trial for trial in priced if not trial.is_baseline]
        figure = go.Figure()
        _add_priced(figure, "trials", [t for t in others if t.counts], {"color": SKY, "size": 7}, cost)
        _add_priced(figure, "over a limit", [t for t in others if not t.counts], OVER_MARK, cost)
        _add_priced(figure, "baseline", [t for t in priced if t.is_baseline], BASELINE_MARK, cost)
        limit = searched.trials[0].goal.limits.given.get(cost)
        if limit is not None:
            figure.add_vline(x=limit, line={"dash": "dash", "color": GREY})
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
            yaxis={"title": "validation accuracy", "tickformat": PERCENT},
            hovermode="closest",
        )
        found[cost] = figure
    return found


def _add_priced(
    figure: go.Figure, name: str, trials: Sequence[Trial], mark: Mapping[str, object], cost: CostName
) -> None:
    if not trials:
        return
    figure.add_scatter(
        x=[trial.cost(cost) for trial in trials],
        y=[trial.val_accuracy for trial in trials],
        text=[trial.label for trial in trials],
        name=name,
        mode="markers",
        marker=dict(mark),
        hovertemplate="%{text}<br>%{x:,.4~g}: %{y:.2%}<extra></extra>",
    )


def timeline(searched: Searched) -> Figure:
    """What each worker did when."""
    drawn = {trial.number for trial in searched.drawn}
    moved, pauses = without_pauses(searched.spans)
    found = [span for span in moved if span.trial in drawn]
    if not found:
        return "No worker told of its times: no trial got to the end of an epoch, or an older version ran them."
    workers = {worker: f"worker {i}" for i, worker in enumerate(dict.fromkeys(span.worker for span in found), start=1)}
    figure = go.Figure()
    for part in PARTS:
        own = [span for span in found if span.part == part]
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
                hovertemplate="%{text}<extra></extra>",  # of a bar with a base, x is where it ends
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
    """The best score of each architecture with each schedule, from comparison.py's groups by both, of one task."""
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
