"""What an evaluation writes for people: figures, the report of every class, and one page that holds all of it."""

import base64
import io
from html import escape
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from sklearn.metrics import classification_report

from cifar_tune.data.images import CLASS_NAMES, Images
from cifar_tune.evaluation.significance import estimate_accuracy
from cifar_tune.evaluation.test_set import Evaluation, Outcome, confusion, hardest_pairs

NUM_SAMPLES = 8  # of each kind
MAX_NAMED = 20  # classes whose cells have room for a number
STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;line-height:1.4}"
    "img{max-width:100%;height:auto;background:#fff}pre{overflow-x:auto}"
    "td,th{padding:.1rem .8rem .1rem 0;text-align:left}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}}"
)


def write_page(folder: Path, search: str, dataset: str, found: Evaluation, images: Images) -> dict[str, float]:
    """`index.html`, the figures and `classes.txt` in the folder; the numbers of the page as metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    names = CLASS_NAMES[dataset]
    report = class_report(found.winner, names)
    (folder / "classes.txt").write_text(report, encoding="utf-8")
    figures = {
        "confusion.png": draw_confusion(found.winner, names),
        "samples.png": draw_samples(found.winner, images, names),
    }
    drawn = {name: _save(figure, folder / name) for name, figure in figures.items()}
    page = _page(search, dataset, found, names, report, drawn)
    (folder / "index.html").write_text(page, encoding="utf-8")
    gain = found.gain()
    return {
        "test_accuracy": float(found.winner.hits.mean()),
        "baseline_test_accuracy": float(found.baseline.hits.mean()),
        "test_gain": gain.mean,
        "test_gain_low": gain.low,
        "test_gain_high": gain.high,
    }


def class_report(tested: Outcome, names: list[str]) -> str:
    """Precision, recall and F1 of every class, over all seeds' predictions together."""
    labels = np.broadcast_to(tested.labels, tested.predictions.shape)
    return str(
        classification_report(
            labels.ravel(),
            tested.predictions.ravel(),
            labels=range(len(names)),
            target_names=names,
            digits=3,
            zero_division=0.0,
        )
    )


def draw_confusion(tested: Outcome, names: list[str]) -> Figure:
    """Shares of each label's images: with numbers for few classes, with small names for many."""
    shares = confusion(tested)
    size = 7.0 if len(names) <= MAX_NAMED else 0.16 * len(names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="cividis", norm=PowerNorm(0.5, vmin=0, vmax=1))  # a confusion of 4 % shows
    axes.set(xlabel="predicted", ylabel="label")
    font = 9 if len(names) <= MAX_NAMED else 6
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font)
    axes.set_yticks(range(len(names)), names, fontsize=font)
    if len(names) <= MAX_NAMED:
        for (label, guess), share in np.ndenumerate(shares):
            color = "black" if share > 0.3 else "white"
            axes.text(guess, label, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=9)
    return figure


def draw_samples(tested: Outcome, images: Images, names: list[str]) -> Figure:
    """Of the first seed's network: right predictions and wrong ones, drawn by lot, with confidences."""
    guesses, confidences = tested.predictions[0], tested.probabilities[0].max(axis=-1)
    figure = Figure(figsize=(1.5 * NUM_SAMPLES, 4.2), layout="constrained")
    grid = figure.subplots(2, NUM_SAMPLES, squeeze=False)
    rng = np.random.default_rng(0)
    for row, is_right in zip(grid, (True, False), strict=True):
        candidates = np.flatnonzero((guesses == tested.labels) == is_right)
        chosen = rng.choice(candidates, min(NUM_SAMPLES, len(candidates)), replace=False)
        for axes in row:
            axes.axis("off")
        for axes, i in zip(row, chosen, strict=False):
            axes.imshow(images.images[i].transpose(1, 2, 0))
            said = "" if is_right else f"is {names[tested.labels[i]]}\n"
            axes.set_title(f"{said}{names[guesses[i]]}, {100 * confidences[i]:.0f} %", fontsize=8)
    return figure


def _save(figure: Figure, path: Path) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure.savefig(buffer, format="png", dpi=130)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def _page(search: str, dataset: str, found: Evaluation, names: list[str], report: str, drawn: dict[str, bytes]) -> str:
    """One file that needs no other and no network."""
    pictures = {name: base64.b64encode(content).decode() for name, content in drawn.items()}
    pairs = "".join(
        f"<tr><td>{escape(names[label])}</td><td>{escape(names[guess])}</td><td>{100 * share:.1f} %</td></tr>"
        for label, guess, share in hardest_pairs(found.winner)
    )
    seeds = len(found.design.seeds)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(search)} on the test set</title><style>{STYLE}</style>
<h1>{escape(search)} on the test set of {escape(dataset)}</h1>
<p>Trial {found.winner.number}, which the search chose, and the baseline, trial {found.baseline.number}: each trained
{seeds} times on all training images, validation images included, with seeds that nothing was chosen by. Intervals hold
the truth in 95 % of such evaluations; they count seeds and test images as samples.</p>
<table><tr><th></th><th>test accuracy</th><th>95 % interval</th></tr>
{_rows(found, averaged=False)}</table>
<h2>With flip averaging</h2><p>The mean of the logits of every image and its mirror image decides.</p>
<table><tr><th></th><th>test accuracy</th><th>95 % interval</th></tr>
{_rows(found, averaged=True)}</table>
<h2>Confusion</h2><p>Of the images of a label, in percent, over all {seeds} networks of the winner.</p>
<img alt="Confusion matrix" src="data:image/png;base64,{pictures["confusion.png"]}">
<h2>The hardest pairs</h2><table><tr><th>label</th><th>predicted</th><th>of the label</th></tr>{pairs}</table>
<h2>Every class</h2><pre>{escape(report)}</pre>
<h2>Samples</h2><p>Above, right predictions of the first network; below, wrong ones: chosen at random.</p>
<img alt="Sample predictions" src="data:image/png;base64,{pictures["samples.png"]}">
</html>
"""


def _rows(found: Evaluation, *, averaged: bool) -> str:
    rows = []
    for role, tested in (("baseline", found.baseline), ("winner", found.winner)):
        accuracy = estimate_accuracy(tested.averaged_hits if averaged else tested.hits)
        rows.append((role, f"{100 * accuracy.mean:.2f} %", f"{100 * accuracy.low:.2f} to {100 * accuracy.high:.2f}"))
    gain = found.gain(averaged=averaged)
    rows.append(("gain in points", f"{100 * gain.mean:+.2f}", f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}"))
    return "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
