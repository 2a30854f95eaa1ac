"""Early stopping: which epoch ends a run and which one counts, as a table and in training."""

from collections.abc import Sequence

import pytest
from helpers.runs import BASE, first_epochs, repeatable, same_tensors, train, with_settings

from cifar_tune.recipe.early_stopping import NoEarlyStopping, Patience
from cifar_tune.recipe.recipe import Value
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import Training
from cifar_tune.trials.trial import State, Trial

# Best after epoch 4 of this one, and after epoch 6 three epochs are no better. The tests check that.
UNEVEN = with_settings(
    {
        "epochs": 10,
        "batch_size": 16,
        "schedule/name": "constant",
        "seed": 1,
        "early_stopping/name": "patience",
        "early_stopping/patience": 3,
    }
)


@pytest.mark.parametrize(
    ("patience", "accuracies", "stops"),
    [
        (1, [0.1], False),
        (1, [0.1, 0.2], False),
        (1, [0.2, 0.2], True),
        (1, [0.2, 0.1], True),
        (2, [0.2, 0.1], False),
        (2, [0.2, 0.1, 0.15], True),
        (2, [0.2, 0.1, 0.3], False),
        (2, [0.2, 0.1, 0.3, 0.3], False),
        (2, [0.2, 0.1, 0.3, 0.3, 0.3], True),
        (3, [0.5, 0.1, 0.2, 0.3], True),
        (7, [0.5] + 6 * [0.4], False),
        (7, [0.5] + 7 * [0.4], True),
    ],
    ids=str,
)
def test_patience_ends_after_so_many_epochs_without_a_better_one(
    patience: int, accuracies: list[float], stops: bool
) -> None:
    assert Patience(patience=patience).stops(accuracies) is stops


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.1], 0), ([0.1, 0.2], 1), ([0.2, 0.1], 0), ([0.2, 0.2], 0), ([0.1, 0.3, 0.2, 0.3], 1), ([0.0, 0.0], 0)],
    ids=str,
)
def test_the_best_epoch_counts_and_of_equals_the_first(accuracies: list[float], best: int) -> None:
    assert Patience(patience=2).counted(accuracies) == best
    assert NoEarlyStopping().counted(accuracies) == len(accuracies) - 1


@pytest.mark.parametrize("accuracies", [[0.1], [0.9, 0.1, 0.1, 0.1], 100 * [0.5]])
def test_without_early_stopping_a_run_never_ends_early(accuracies: list[float]) -> None:
    assert not NoEarlyStopping().stops(accuracies)


def test_the_default_patience_is_that_of_the_resnet50_cifar100_project() -> None:
    assert Patience().patience == 7


@pytest.mark.parametrize(
    ("accuracies", "stops"),
    [
        ([0.5], False),
        ([0.5, 0.4, 0.3], False),
        ([0.5, 0.4, 0.3, 0.2], False),
        ([0.5, 0.4, 0.3, 0.2, 0.2], True),
        ([0.5, 0.4, 0.3, 0.2, 0.3], False),
    ],
    ids=str,
)
def test_patience_counts_in_the_last_phase_alone(accuracies: list[float], stops: bool) -> None:
    phases = UNEVEN.replace({"finetune/name": "two-phase", "finetune/head_epochs": 3, "early_stopping/patience": 1})
    assert phases.stops(accuracies) is stops
    assert not phases.replace({"early_stopping/name": "none"}).stops(accuracies)


# By training


def best_network(training: Training) -> Training:
    """The same run, trained up to the epoch that counts."""
    again = Training(training.recipe, training.data)
    assert len(list(first_epochs(again, training.counted.epoch))) == training.counted.epoch
    return again


def test_a_run_out_of_patience_ends_with_its_best_epochs_network(smallest: DeviceData) -> None:
    training = Training(UNEVEN, smallest)
    epochs = list(training.fit())
    best = max(epochs, key=lambda metrics: metrics.val_accuracy)
    assert 1 < best.epoch == training.counted.epoch
    assert len(epochs) == best.epoch + 3 < UNEVEN.epochs
    assert training.is_over
    assert list(training.fit()) == []
    assert same_tensors(training.model, best_network(training).model)
    assert training.evaluate(smallest.val) == (best.val_loss, best.val_accuracy)


def test_so_does_one_that_reaches_its_planned_end(smallest: DeviceData) -> None:
    training = Training(UNEVEN.replace({"epochs": 6, "early_stopping/patience": 5}), smallest)
    assert len(list(training.fit())) == 6
    assert 1 < training.counted.epoch < 6
    assert same_tensors(training.model, best_network(training).model)


def test_the_network_is_the_best_ones_when_the_last_metrics_are_given(smallest: DeviceData) -> None:
    """The caller saves it then, because nothing runs after the last report of a trial."""
    training = Training(UNEVEN, smallest)
    for _ in training.fit():
        is_best = training.evaluate(smallest.val)[1] == training.counted.val_accuracy
        assert is_best or not training.is_over


@pytest.mark.slow
def test_until_a_run_is_over_training_goes_on_from_the_last_epoch(smallest: DeviceData) -> None:
    without = UNEVEN.replace({"early_stopping/name": "none"})
    epochs = train(UNEVEN, smallest)
    assert epochs == train(without, smallest)[: len(epochs)]


def test_without_early_stopping_the_last_epochs_network_stays(smallest: DeviceData) -> None:
    training = Training(BASE, smallest)
    *_, last = training.fit()
    assert training.counted is last
    assert training.evaluate(smallest.val) == (last.val_loss, last.val_accuracy)


def test_the_heads_phase_cannot_end_a_run_but_its_network_may_count(smallest: DeviceData) -> None:
    """At a rate of almost nothing no epoch is better than the first."""
    phases: dict[str, Value] = {"finetune/name": "two-phase", "finetune/head_epochs": 3, "finetune/lr": 1e-12}
    recipe = UNEVEN.replace({**phases, "optimizer/lr": 1e-12, "early_stopping/patience": 1})
    training = Training(recipe, smallest)
    assert len(list(training.fit())) == 5
    assert training.counted.epoch == 1
    assert same_tensors(training.model, best_network(training).model)


# The score of a trial


def trial(state: State, accuracies: Sequence[float], *, patience: bool = True) -> Trial:
    curve = [{"epoch": i, "val_accuracy": accuracy} for i, accuracy in enumerate(accuracies, start=1)]
    recipe = UNEVEN if patience else UNEVEN.replace({"early_stopping/name": "none"})
    return Trial("tiny", 0, state, recipe, {}, True, curve)


@pytest.mark.parametrize("state", ["running", "interrupted", "pruned", "stopped early", "completed"])
def test_a_trials_score_is_that_of_the_epoch_that_counts(state: State) -> None:
    assert trial(state, [0.2, 0.6, 0.4]).score == 0.6
    assert trial(state, [0.2, 0.6, 0.4], patience=False).score == 0.4
    assert trial(state, []).score is None


@pytest.mark.parametrize(("state", "score"), [("diverged", 0.1), ("out of memory", 0.1), ("failed", None)])
def test_what_broke_down_has_no_best_epoch(state: State, score: float | None) -> None:
    assert trial(state, [0.2, 0.6, 0.4]).score == score


def test_a_trial_trained_and_recorded_has_the_score_of_its_network(smallest: DeviceData) -> None:
    training = Training(UNEVEN, smallest)
    list(training.fit())
    recorded = Trial("tiny", 0, "stopped early", UNEVEN, {}, True, [repeatable(m) for m in training.history])
    assert recorded.score == training.counted.val_accuracy
