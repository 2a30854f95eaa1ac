"""The files that an evaluation writes for people: figures, the report of every class, and one page with all of it."""

import base64
import io
import textwrap
from html import escape
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from sklearn.metrics import classification_report

from cifar_tune.data.images import Images
from cifar_tune.evaluation.significance import estimate_score
from cifar_tune.evaluation.test_set import Evaluation, Outcome, confusion, hardest_pairs
from cifar_tune.training.scores import ScoreName
from cifar_tune.wording import format_percent, format_percent_range, format_points, format_points_range, score_title

NUM_SAMPLES = 8  # of right predictions, and of wrong ones
MAX_NUMBERED = 20  # classes; the cells of more have no room for a number
MAX_NAMED = 150  # classes; more have no room for their names
MAX_LETTERS = 24  # of a class's name in figures
SAMPLE_LETTERS = 12  # of a line above a sample, even if all of them are wide
STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;line-height:1.4}"
    "img{max-width:100%;height:auto;background:#fff}pre{overflow-x:auto}"
    "td,th{padding:.1rem .8rem .1rem 0;text-align:left}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}}"
)


def write_page(
    folder: Path, search: str, dataset: str, evaluation: Evaluation, images: Images, names: list[str]
) -> None:
    """Write `index.html`, the figures and `classes.txt`.

    The test images are for the samples; `names` are those of the classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = class_report(evaluation.winner, names)
    (folder / "classes.txt").write_text(report, encoding="utf-8")
    figures = {
        "confusion.png": draw_confusion(evaluation.winner, names),
        "samples.png": draw_samples(evaluation.winner, images, names),
    }
    pictures = {name: _save(figure, folder / name) for name, figure in figures.items()}
    page = _page(search, dataset, evaluation, names, report, pictures)
    (folder / "index.html").write_text(page, encoding="utf-8")


def metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """The test accuracies, those of the score where it is another one, and the score's gain, as fractions."""
    gain = evaluation.gain()
    means = {
        f"{role}test_{score}": float(outcome.values(score).mean())
        for score in evaluation.scores
        for role, outcome in (("", evaluation.winner), ("baseline_", evaluation.baseline))
    }
    return {
        **means,
        "test_gain": gain.mean,
        "test_gain_low": gain.low,
        "test_gain_high": gain.high,
    }


def class_report(outcome: Outcome, names: list[str]) -> str:
    """Precision, recall and F1 of every class, over the predictions of all seeds together."""
    labels = np.broadcast_to(outcome.labels, outcome.predictions.shape)
    return str(
        classification_report(
            labels.ravel(),
            outcome.predictions.ravel(),
            labels=range(len(names)),
            target_names=names,
            digits=3,
            zero_division=0.0,
        )
    )


def draw_confusion(outcome: Outcome, names: list[str]) -> Figure:
    """The confusion matrix as shares of each label's images: numbers for few classes, small names or none for many."""
    shares = confusion(outcome)
    size = 7.0 if len(names) <= MAX_NUMBERED else 0.16 * min(len(names), MAX_NAMED)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="cividis", norm=PowerNorm(0.5, vmin=0, vmax=1))  # so that a confusion of 4 % is visible
    axes.set(xlabel="predicted", ylabel="label")
    font = 9 if len(names) <= MAX_NUMBERED else 6
    if len(names) <= MAX_NAMED:
        short = [shortened(name) for name in names]
        axes.set_xticks(range(len(names)), short, rotation=90, fontsize=font)
        axes.set_yticks(range(len(names)), short, fontsize=font)
    if len(names) <= MAX_NUMBERED:
        for (label, guess), share in np.ndenumerate(shares):
            color = "black" if share > 0.3 else "white"
            axes.text(guess, label, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=9)
    return figure


def draw_samples(outcome: Outcome, images: Images, names: list[str]) -> Figure:
    """Random right predictions and wrong ones of the first seed's network, with their confidence."""
    guesses, confidences = outcome.predictions[0], outcome.probabilities[0].max(axis=-1)
    figure = Figure(figsize=(1.5 * NUM_SAMPLES, 4.2), layout="constrained")
    grid = figure.subplots(2, NUM_SAMPLES, squeeze=False)
    rng = np.random.default_rng(0)
    for row, is_right in zip(grid, (True, False), strict=True):
        candidates = np.flatnonzero((guesses == outcome.labels) == is_right)
        chosen = rng.choice(candidates, min(NUM_SAMPLES, len(candidates)), replace=False)
        for axes in row:
            axes.axis("off")
        for axes, i in zip(row, chosen, strict=False):
            axes.imshow(images.images[i].transpose(1, 2, 0))
            lines = [] if is_right else [f"is {names[outcome.labels[i]]}"]
            lines += [names[guesses[i]], format_percent(confidences[i], 0)]
            axes.set_title("\n".join(map(_wrapped, lines)), fontsize=8)
    return figure


def shortened(name: str) -> str:
    """A class's name as figures have room for it; matplotlib would read dollar signs as mathematics."""
    return _cut(name).replace("$", r"\$")


def _cut(name: str) -> str:
    return name if len(name) <= MAX_LETTERS else name[: MAX_LETTERS - 1] + "…"


def _wrapped(text: str) -> str:
    """As `shortened`, in lines that are no wider than a sample."""
    return "\n".join(textwrap.wrap(_cut(text), SAMPLE_LETTERS)).replace("$", r"\$")


def _save(figure: Figure, path: Path) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure.savefig(buffer, format="png", dpi=130)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def _page(
    search: str, dataset: str, evaluation: Evaluation, names: list[str], report: str, pictures: dict[str, bytes]
) -> str:
    """One HTML file that needs no other file and no network."""
    encoded = {name: base64.b64encode(content).decode() for name, content in pictures.items()}
    pairs = "".join(
        f"<tr><td>{escape(names[label])}</td><td>{escape(names[guess])}</td><td>{format_percent(share, 1)}</td></tr>"
        for label, guess, share in hardest_pairs(evaluation.winner)
    )
    seeds = len(evaluation.design.seeds)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(search)} on the test set</title><style>{STYLE}</style>
<h1>{escape(search)} on the test set of {escape(dataset)}</h1>
<p>The winner of the search is trial {evaluation.winner.number}, the baseline trial {evaluation.baseline.number}. Each
was trained {seeds} times, with fresh seeds, on all training images including the validation images. The intervals cover
the truth in 95 % of such evaluations; they count both seeds and test images as samples.</p>
{_tables(evaluation, averaged=False)}
<h2>With flip averaging</h2><p>The logits of every image and its mirror image are averaged.</p>
{_tables(evaluation, averaged=True)}
<h2>Confusion</h2><p>Percentages of each label's images, over all {seeds} networks of the winner.</p>
<img alt="Confusion matrix" src="data:image/png;base64,{encoded["confusion.png"]}">
<h2>The hardest pairs</h2><table><tr><th>label</th><th>predicted</th><th>share of the label</th></tr>{pairs}</table>
<h2>Every class</h2><pre>{escape(report)}</pre>
<h2>Samples</h2><p>Random predictions of the first network: right ones above, wrong ones below.</p>
<img alt="Sample predictions" src="data:image/png;base64,{encoded["samples.png"]}">
</html>
"""


def _tables(evaluation: Evaluation, *, averaged: bool) -> str:
    """A table for the score with the gain, and one for the accuracy where the score is another one."""
    return "\n".join(
        f"<table><tr><th></th><th>test {score_title(score)}</th><th>95 % interval</th></tr>\n"
        f"{_rows(evaluation, score, averaged=averaged)}</table>"
        for score in evaluation.scores
    )


def _rows(evaluation: Evaluation, score: ScoreName, *, averaged: bool) -> str:
    """The rows of the table of one score."""
    rows = []
    for role, outcome in (("baseline", evaluation.baseline), ("winner", evaluation.winner)):
        estimate = estimate_score(outcome.values(score, averaged=averaged))
        rows.append((role, format_percent(estimate.mean), format_percent_range(estimate.low, estimate.high)))
    if score == evaluation.design.score:
        gain = evaluation.gain(averaged=averaged)
        rows.append(("gain in points", format_points(100 * gain.mean), format_points_range(gain.low, gain.high)))
    return "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
