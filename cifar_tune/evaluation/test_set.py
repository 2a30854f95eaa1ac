"""An evaluation: a search's winner and baseline on the held-out test set, which is read here and nowhere else.

Their networks are trained on the validation images too (reruns.py). Their logits of the test images are stored beside
their weights, so a report need not open the test set again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cifar_tune.data.datasets import Loaded, load_test_images
from cifar_tune.data.images import Images
from cifar_tune.errors import UserError
from cifar_tune.evaluation.reruns import Design, count_reruns, read_design, read_runs, runs_name, runs_of
from cifar_tune.evaluation.significance import Gain, judge_gains, paired_difference
from cifar_tune.evaluation.test_set_log import note_opening
from cifar_tune.store import WEIGHTS, Store
from cifar_tune.training.scores import ScoreName, Values, image_values, validation_names
from cifar_tune.trials.trial import Trial

LOGITS = "test_logits.npy"  # in a run's folder: float32 (2, images, classes) of the images and of their mirror images
DIGEST = "test_images.sha256"  # in the evaluation's folder: hex SHA-256 of the source of its test images
LABELS = "test_labels.npy"  # in the evaluation's folder: int64 (images,)

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """The test results of one recipe: `logits` (seeds, 2, images, classes) of a network per seed, `labels` (images,).

    The axis of length 2 has the images and their mirror images.
    """

    number: int
    logits: Array
    labels: npt.NDArray[np.int64]

    @cached_property
    def predictions(self) -> npt.NDArray[np.int64]:
        """The predicted classes (seeds, images)."""
        classes: npt.NDArray[np.int64] = self.logits[:, 0].argmax(axis=-1)
        return classes

    @cached_property
    def probabilities(self) -> Array:
        """The probabilities (seeds, images, classes), without the mirror images."""
        powers = np.exp(self.logits[:, 0] - self.logits[:, 0].max(axis=-1, keepdims=True))
        shares: Array = powers / powers.sum(axis=-1, keepdims=True)
        return shares

    def values(self, score: ScoreName, *, averaged: bool = False) -> Values:
        """The images' values (seeds, images), whose mean is the score: of an accuracy, whether predictions are right.

        With `averaged`, of predictions by the mean logits of each image and its mirror image.
        """
        predictions = self.logits.mean(axis=1).argmax(axis=-1) if averaged else self.predictions
        return np.stack([image_values(score, row, self.labels) for row in predictions])


@dataclass(frozen=True)
class Evaluation:
    """The `count`-th evaluation of a search; winner and baseline are the same where no trial beat the baseline."""

    count: int
    design: Design
    winner: Outcome
    baseline: Outcome

    def gain(self, *, averaged: bool = False) -> Gain:
        """The paired difference of the test scores with its 95 % interval."""
        ours, theirs = (each.values(self.design.score, averaged=averaged) for each in (self.winner, self.baseline))
        (gain,) = judge_gains([paired_difference(ours, theirs)])
        return gain

    @property
    def scores(self) -> tuple[ScoreName, ...]:
        """The scores to show: the one that the search is for, and the accuracy."""
        return tuple(dict.fromkeys([self.design.score, "accuracy"]))


def read_evaluation(store: Store, search: str, count: int | None = None) -> Evaluation | None:
    """The last completed evaluation of a search, or the `count`-th; None if there is none."""
    counts = range(count_reruns(store, search, "evaluate"), 0, -1) if count is None else [count]
    for each in counts:
        design, runs = read_design(store, search, "evaluate", each), read_runs(store, search, "evaluate", each)
        labels = _labels(store, search, each)
        if labels.is_file() and len(runs) == design.num_runs:
            outcomes = {number: _read_outcome(store, number, runs, np.load(labels)) for number in design.recipes}
            winner = design.finalists[0] if design.finalists else design.baseline
            return Evaluation(each, design, outcomes[winner], outcomes[design.baseline])
    return None


def _read_outcome(store: Store, number: int, runs: Sequence[Trial], labels: npt.NDArray[np.int64]) -> Outcome:
    folders = [store.trial(run.search, run.number) for run in runs_of(runs, number)]
    logits = [np.load(folder / LOGITS, allow_pickle=False) for folder in folders]
    return Outcome(number, np.stack(logits), labels)


def open_test_set(store: Store, search: str, count: int, data_dir: Path | None, *, use_gpu: bool) -> Loaded:
    """Log the opening, read the test images, store every network's logits of them, and return what was read."""
    from cifar_tune.training.checkpoint import save_array  # imports torch, which reports need not load

    runs = read_runs(store, search, "evaluate", count)
    broken = [run for run in runs if not run.is_complete]
    if broken:
        raise UserError(
            f"{broken[0].label} {broken[0].state}, so the test set stays closed; run `evaluate {search} --again` with "
            f"fresh seeds, or see its error in MLflow."
        )
    note_opening(store, search, count)
    recipe = runs[0].recipe
    loaded = load_test_images(recipe.dataset, data_dir=data_dir, store=store.root, image_size=recipe.image_size)
    _check_same(store, search, count, loaded.digest)
    for run in runs:
        folder = store.trial(run.search, run.number)
        if not (folder / LOGITS).is_file():
            save_array(folder / LOGITS, _infer(folder / WEIGHTS, loaded.images, use_gpu=use_gpu))
    # The labels last, because they mark the evaluation as completed.
    save_array(_labels(store, search, count), loaded.images.labels)
    return loaded


def _check_same(store: Store, search: str, count: int, digest: str) -> None:
    """Raise a UserError where an interrupted evaluation had opened other test images: its logits are of those."""
    path = store.search(runs_name(search, "evaluate", count)) / DIGEST
    if path.is_file() and path.read_text(encoding="utf-8") != digest:
        raise UserError(
            f"The test images have changed since this evaluation opened them; put the old ones back, or run "
            f"`evaluate {search} --again`."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest, encoding="utf-8")


def _infer(weights: Path, images: Images, *, use_gpu: bool) -> Array:
    """A network's logits of all images and their mirror images, (2, images, classes)."""
    import torch

    from cifar_tune.training.inference import load_classifier
    from cifar_tune.training.inputs import autocast

    device = torch.device("cuda" if use_gpu and torch.cuda.is_available() else "cpu")
    classifier, recipe = load_classifier(weights)
    classifier = classifier.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = []
    with torch.inference_mode(), autocast(recipe, device):
        for pixels in torch.split(torch.from_numpy(images.images), recipe.evaluation_batch):
            placed = pixels.to(device)
            parts.append(torch.stack([classifier(placed).float(), classifier(placed.flip(-1)).float()]).cpu())
    logits: Array = torch.cat(parts, dim=1).numpy()
    return logits


def free_weights(store: Store, search: str, count: int) -> dict[int, Path]:
    """Keep each recipe's network of the first seed, whatever its score, and delete the others; the files by trial."""
    kept: dict[int, Path] = {}
    runs = read_runs(store, search, "evaluate", count)
    for number in read_design(store, search, "evaluate", count).recipes:
        kept[number], *others = [store.trial(run.search, run.number) / WEIGHTS for run in runs_of(runs, number)]
        for path in others:
            path.unlink(missing_ok=True)
    return kept


def hardest_pairs(outcome: Outcome, number: int = 10) -> list[tuple[int, int, float]]:
    """The pairs of classes (label, prediction) that are confused most, with the share of the label's images."""
    shares = confusion(outcome)
    np.fill_diagonal(shares, 0.0)
    order = np.argsort(-shares, axis=None, kind="stable")[:number]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, shares.shape), strict=True)]
    return [(label, guess, float(shares[label, guess])) for label, guess in pairs if shares[label, guess] > 0]


def confusion(outcome: Outcome) -> npt.NDArray[np.float64]:
    """The confusion matrix (labels, predictions) in shares of a label's images, over all seeds."""
    num_classes = outcome.logits.shape[-1]
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (np.broadcast_to(outcome.labels, outcome.predictions.shape), outcome.predictions), 1)
    shares: npt.NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    return shares


def _labels(store: Store, search: str, count: int) -> Path:
    return store.search(runs_name(search, "evaluate", count)) / LABELS


def watched_epochs(trial: Trial) -> list[tuple[float, ...]]:
    """The validation of a trial after each epoch, as the training loop computes it."""
    return [tuple(epoch[name] for name in validation_names(trial.goal.score)) for epoch in trial.curve]


def choose_winner(means: Mapping[int, float], baseline: int) -> int:
    """The trial with the highest mean over fresh seeds, or the baseline if it is as good."""
    return max(means, key=lambda number: (means[number], number == baseline))
