"""The scores against scikit-learn's, and the sampling variance that the images' values give."""

import numpy as np
import numpy.typing as npt
import pytest
from helpers.runs import BASE, repeatable, train
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from cifar_tune.evaluation.significance import ALPHA, Difference, paired_difference
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import Training
from cifar_tune.training.scores import (
    SCORE_ERROR,
    SCORE_NAMES,
    ScoreName,
    chance,
    image_values,
    metric_name,
    score_with_error,
    validation_names,
)

Classes = npt.NDArray[np.int64]

SHARES = (0.5, 0.25, 0.15, 0.07, 0.03)  # of five classes
LEANINGS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # of a recipe's logits towards the rare classes


def reference(score: ScoreName, predictions: Classes, labels: Classes) -> float:
    if score == "accuracy":
        return float(accuracy_score(labels, predictions))
    if score == "balanced_accuracy":
        return float(balanced_accuracy_score(labels, predictions))
    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


@pytest.mark.parametrize("num_images", [10, 100, 1000])
@pytest.mark.parametrize("score", SCORE_NAMES)
def test_the_mean_of_the_values_is_scikit_learns_score(score: ScoreName, num_images: int) -> None:
    rng = np.random.default_rng(0)
    for num_classes in (2, 3, 10):
        for shares in (np.full(num_classes, 1 / num_classes), rng.dirichlet(np.full(num_classes, 0.5))):
            labels = np.concatenate([np.arange(num_classes), rng.choice(num_classes, num_images, p=shares)])
            guesses = np.where(rng.random(len(labels)) < 0.6, labels, rng.integers(0, num_classes, len(labels)))
            expected = reference(score, guesses, labels)
            assert image_values(score, guesses, labels).mean() == pytest.approx(expected, abs=1e-12)
            assert score_with_error(score, guesses, labels)[0] == pytest.approx(expected, abs=1e-15)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("score", SCORE_NAMES)
def test_classes_that_occur_nowhere_or_only_in_predictions_count_as_in_scikit_learn(score: ScoreName) -> None:
    labels, guesses = np.array([0, 0, 2, 2, 5]), np.array([0, 1, 2, 2, 2])
    assert image_values(score, guesses, labels).mean() == pytest.approx(reference(score, guesses, labels))


@pytest.mark.parametrize("score", SCORE_NAMES)
def test_perfect_predictions_score_one_without_any_error(score: ScoreName) -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    assert score_with_error(score, labels, labels) == (1.0, 0.0)


@pytest.mark.parametrize("score", ["balanced_accuracy", "macro_f1"])
def test_equal_scores_are_equal_to_the_last_bit(score: ScoreName) -> None:
    """Which class has which recall does not matter, so that early stopping sees no gain where there is none."""
    labels = np.repeat(np.arange(6), 7)
    guesses = np.random.default_rng(0).integers(0, 6, len(labels))
    orders = [np.random.default_rng(seed).permutation(6) for seed in range(50)]
    assert len({score_with_error(score, order[guesses], order[labels])[0] for order in orders}) == 1


def test_the_values_of_an_accuracy_are_hits() -> None:
    values = image_values("accuracy", np.array([0, 1]), np.array([0, 0]))
    assert values.dtype == np.bool_
    assert values.tolist() == [True, False]


@pytest.mark.parametrize("score", SCORE_NAMES)
def test_chance_is_the_score_of_one_class_for_all_of_balanced_images(score: ScoreName) -> None:
    labels = np.repeat(np.arange(7), 20)
    assert chance(score, 7) == pytest.approx(reference(score, np.full_like(labels, 3), labels))


def draw_labels(rng: np.random.Generator, num_images: int) -> tuple[Classes, npt.NDArray[np.float64]]:
    """Labels in the proportions of SHARES, and logits of each image that all recipes and seeds have in common."""
    labels = rng.choice(len(SHARES), num_images, p=SHARES)
    return labels, rng.normal(0, 1.2, (num_images, len(SHARES))) + 2 * np.eye(len(SHARES))[labels]


def train_seeds(
    rng: np.random.Generator, common: npt.NDArray[np.float64], leaning: float, num_seeds: int = 3
) -> list[Classes]:
    """The predictions of a recipe with some seeds: each seed leans to some classes, and sees images in its own way."""
    own = common + rng.normal(0, 0.6, common.shape) + leaning * np.array(LEANINGS)
    seeds = [own + rng.normal(0, 0.3, len(SHARES)) + rng.normal(0, 0.5, common.shape) for _ in range(num_seeds)]
    return [logits.argmax(axis=1) for logits in seeds]


def draw_difference(rng: np.random.Generator, score: ScoreName, num_images: int) -> Difference:
    """The difference of a recipe that leans towards the rare classes from one that does not."""
    labels, common = draw_labels(rng, num_images)
    ours, theirs = (
        np.stack([image_values(score, guesses, labels) for guesses in train_seeds(rng, common, leaning)])
        for leaning in (1.0, 0.0)
    )
    return paired_difference(ours, theirs)


@pytest.mark.parametrize("score", SCORE_NAMES)
def test_intervals_contain_the_true_difference_on_imbalanced_classes(score: ScoreName) -> None:
    """Validation splits of 400 images, 12 of them of the rarest class; a sample of 600 such confirmations."""
    rng = np.random.default_rng(0)
    truth = np.mean([draw_difference(rng, score, 20_000).mean for _ in range(30)])
    differences = [draw_difference(rng, score, 400) for _ in range(600)]
    intervals = [difference.interval(ALPHA) for difference in differences]
    missed = np.mean([not low <= truth <= high for low, high in intervals])
    assert missed <= ALPHA + 0.027  # three standard errors
    variances = [each.seeds + each.images - each.rest for each in differences]
    assert np.mean(variances) == pytest.approx(np.var([each.mean for each in differences]), rel=0.2)


def test_classes_of_three_images_do_not_make_a_balanced_accuracy_look_too_sure() -> None:
    """A stratified split has the same number of images of each class every time."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [60, 20, 6, 3])
    recalls = np.array([0.95, 0.9, 0.7, 0.6])
    results = []
    for _ in range(3_000):
        guesses = np.where(rng.random(len(labels)) < recalls[labels], labels, 0)
        guesses[(labels == 0) & (rng.random(len(labels)) > recalls[0])] = 1
        results.append(score_with_error("balanced_accuracy", guesses, labels))
    means, errors = np.array(results).T
    assert np.mean(errors**2) == pytest.approx(means.var(), rel=0.1)


@pytest.mark.parametrize("score", SCORE_NAMES)
def test_the_standard_error_is_how_much_scores_differ_between_samples_of_images(score: ScoreName) -> None:
    rng = np.random.default_rng(0)
    results = []
    for _ in range(1_000):
        labels, common = draw_labels(rng, 400)
        results.append(score_with_error(score, common.argmax(axis=1), labels))
    means, errors = np.array(results).T
    assert errors.mean() == pytest.approx(means.std(), rel=0.1)


# In training


@pytest.mark.parametrize("score", SCORE_NAMES)
def test_an_epoch_has_the_accuracy_and_the_score_of_the_networks_predictions(
    smallest: DeviceData, score: ScoreName
) -> None:
    training = Training(BASE, smallest, score=score)
    *_, metrics = training.fit()
    row = metrics.as_row()
    guesses, labels = training.predict(smallest.val).argmax(dim=1).numpy(), smallest.val.labels.numpy()
    for name in {score, "accuracy"}:
        assert row[metric_name(name)] == pytest.approx(reference(name, guesses, labels))
    others = {metric_name(each) for each in SCORE_NAMES} - {"val_accuracy", metric_name(score)}
    assert row.keys().isdisjoint(others)
    assert row.get(SCORE_ERROR) == (None if score == "accuracy" else pytest.approx(0.05, abs=0.05))
    assert tuple(row[name] for name in validation_names(score)) == training.evaluate(smallest.val)


def test_another_score_changes_nothing_of_how_a_network_learns(smallest: DeviceData) -> None:
    by_f1 = [repeatable(metrics) for metrics in Training(BASE, smallest, score="macro_f1").fit()]
    names = ("val_macro_f1", "val_score_error")
    assert [{k: v for k, v in row.items() if k not in names} for row in by_f1] == train(BASE, smallest)


def test_early_stopping_watches_the_score(smallest: DeviceData) -> None:
    """One run follows the validation of another: the accuracy is best after epoch 2, the macro F1 after epoch 1."""
    recipe = BASE.replace({"epochs": 4, "early_stopping/name": "patience", "early_stopping/patience": 2})
    seen = [(1.0, 0.1, 0.4, 0.01), (1.0, 0.3, 0.2, 0.01), (1.0, 0.2, 0.3, 0.01), (1.0, 0.2, 0.3, 0.01)]
    by_f1 = Training(recipe, smallest, watched=seen, score="macro_f1")
    assert [metrics.val_macro_f1 for metrics in by_f1.fit()] == [0.4, 0.2, 0.3]
    assert by_f1.counted.epoch == 1
    by_accuracy = Training(recipe, smallest, watched=[each[:2] for each in seen])
    assert len(list(by_accuracy.fit())) == 4
    assert by_accuracy.counted.epoch == 2


def test_a_resumed_run_has_the_scores_of_before(smallest: DeviceData) -> None:
    training = Training(BASE, smallest, score="balanced_accuracy")
    expected = [repeatable(metrics) for metrics in training.fit()]
    first = Training(BASE, smallest, score="balanced_accuracy")
    next(first.fit())
    again = Training(BASE, smallest, score="balanced_accuracy")
    again.load_state_dict(first.state_dict())
    list(again.fit())
    assert [repeatable(metrics) for metrics in again.history] == expected
