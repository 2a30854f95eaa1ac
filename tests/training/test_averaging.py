"""Averaged weights: torch's own averaging, what is evaluated, kept and resumed."""

from pathlib import Path

import pytest
import torch
from helpers.runs import resumed, same_tensors, with_settings
from torch.optim.swa_utils import AveragedModel

from cifar_tune.recipe.averaging import ExponentialAverage
from cifar_tune.recipe.recipe import Value
from cifar_tune.training.checkpoint import save_state
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import Training

EMA: dict[str, Value] = {"averaging/name": "ema", "averaging/decay": 0.9}


def test_the_average_is_that_of_torch_with_the_same_decay() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    decays = [min(0.8, (1 + step) / (10 + step)) for step in range(60)]
    theirs = AveragedModel(network, avg_fn=lambda a, w, n: a + (w - a) * (1 - decays[int(n) - 1]), use_buffers=True)
    theirs.n_averaged += 1  # torch copies the first weights; here they are averaged, too
    average = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(60):
        network(torch.randn(8, 3, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        theirs.update_parameters(network)
        ExponentialAverage(decay=0.8).update(average, network.state_dict(), step)
    expected = theirs.module.state_dict()
    assert average.keys() == expected.keys()
    assert decays[0] == 0.1
    assert decays[-1] == 0.8
    for name in set(average) - {"1.num_batches_tracked"}:
        torch.testing.assert_close(average[name], expected[name])
    assert average["1.num_batches_tracked"] == network[1].num_batches_tracked == 60


def test_the_average_is_evaluated_and_kept_and_training_goes_on_with_its_own_weights(smallest: DeviceData) -> None:
    plain, averaged = (Training(with_settings({"epochs": 2, **each}), smallest) for each in ({}, EMA))
    for ours, theirs in zip(averaged.fit(), plain.fit(), strict=True):
        assert ours.train_loss == theirs.train_loss
        assert ours.val_loss != theirs.val_loss
    assert not same_tensors(averaged.model, plain.model)
    assert averaged.evaluate(smallest.val) == (averaged.history[-1].val_loss, averaged.history[-1].val_accuracy)


@pytest.mark.parametrize("settings", [{}, {"early_stopping/name": "patience"}], ids=str)
def test_an_averaged_run_is_resumed_bit_for_bit(
    settings: dict[str, Value], smallest: DeviceData, tmp_path: Path
) -> None:
    recipe = with_settings({**EMA, **settings})
    whole, stopped = Training(recipe, smallest), Training(recipe, smallest)
    expected = [metrics.val_loss for metrics in whole.fit()]
    next(stopped.fit())
    save_state(tmp_path, stopped.state_dict())
    again = resumed(recipe, smallest, tmp_path)
    assert [metrics.val_loss for metrics in again.fit()] == expected[1:]
    assert same_tensors(again.model, whole.model)


def test_under_early_stopping_the_best_epochs_average_is_kept(smallest: DeviceData) -> None:
    training = Training(with_settings({**EMA, "early_stopping/name": "patience", "epochs": 4}), smallest)
    list(training.fit())
    counted = training.counted
    assert training.evaluate(smallest.val) == (counted.val_loss, counted.val_accuracy)
