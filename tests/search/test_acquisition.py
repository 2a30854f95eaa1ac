"""What an epoch is worth."""

import numpy as np
import pytest

from cifar_tune.search.acquisition import Costs, expected_improvement, reservation_values
from cifar_tune.search.gaussian_process import Foresight, Normal

PRICE = 0.002


def foresight(mean: float, sd: float, resolved: float) -> Foresight:
    return Foresight(np.array([mean]), np.array([sd]), np.array([resolved]))


def worth(mean: float = 0.6, sd: float = 0.1, resolved: float = 0.0, price: float = PRICE) -> float:
    (value,) = reservation_values(foresight(mean, sd, resolved), Costs(np.array([2.0]), np.array([14.0])), price)
    return float(value)


def test_a_trial_is_just_worth_its_epochs_at_its_reservation_value() -> None:
    (gain,) = expected_improvement(Normal(np.array([0.6]), np.array([0.01])), worth())
    assert gain == pytest.approx(16 * PRICE, rel=1e-3)


def test_a_trial_that_can_be_given_up_is_worth_more_and_just_pays_with_that_choice() -> None:
    value = worth(resolved=0.08)
    assert value > worth() + 0.005
    later = 0.6 + 0.08 * np.random.default_rng(0).standard_normal(200_000)
    gains = expected_improvement(Normal(later, np.full(len(later), 0.1**2 - 0.08**2)), value)
    assert np.maximum(gains - 14 * PRICE, 0).mean() == pytest.approx(2 * PRICE, rel=0.1)


def test_a_trial_is_worth_more_the_better_and_the_less_certain_it_is_and_the_cheaper_epochs_are() -> None:
    assert worth(mean=0.7) > worth()
    assert worth(sd=0.2) > worth()
    assert worth(price=PRICE / 2) > worth()


def test_epochs_that_are_nearly_free_are_worth_far_more_than_the_mean() -> None:
    assert worth(price=1e-6) > 0.6 + 3 * 0.1
