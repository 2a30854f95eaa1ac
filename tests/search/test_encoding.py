"""The encoding of sampled values as points of the unit cube, and back."""

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cifar_tune.search.encoding import ABSENT, Encoding, from_unit, is_ordered, to_unit

ORDERED: list[tuple[BaseDistribution, float, float]] = [
    (FloatDistribution(2.0, 4.0), 3.0, 0.5),
    (FloatDistribution(1e-4, 1e-2, log=True), 1e-3, 0.5),
    (FloatDistribution(0.0, 1.0, step=0.25), 0.75, 0.75),
    (IntDistribution(0, 4), 1, 0.25),
    (IntDistribution(1, 16, log=True), 4, 0.5),
    (CategoricalDistribution([400, 100, 200]), 200, 0.5),
]


@pytest.mark.parametrize(("distribution", "value", "unit"), ORDERED, ids=str)
def test_a_number_becomes_its_position_in_its_range_and_back(
    distribution: BaseDistribution, value: float, unit: float
) -> None:
    assert is_ordered(distribution)
    assert to_unit(distribution, value) == pytest.approx(unit)
    decoded = from_unit(distribution, unit)
    assert decoded == pytest.approx(value)
    assert type(decoded) is type(value)


@pytest.mark.parametrize(("distribution", "value", "unit"), ORDERED, ids=str)
@pytest.mark.parametrize("other", [0.0, 0.31, 0.62, 1.0])
def test_every_place_has_a_value_of_the_distribution(
    distribution: BaseDistribution, value: float, unit: float, other: float
) -> None:
    assert distribution._contains(distribution.to_internal_repr(from_unit(distribution, other)))


def test_a_range_of_one_value_is_one_place() -> None:
    assert to_unit(FloatDistribution(2.0, 2.0), 2.0) == 0.0


def test_choices_between_names_are_columns_of_their_own_and_two_share_one() -> None:
    encoding = Encoding(
        {
            "optimizer/name": CategoricalDistribution(["adam", "adamw", "sgd"]),
            "augment/flip": CategoricalDistribution([True, False]),
            "epochs": IntDistribution(0, 10),
        }
    )
    points = encoding.encode(
        [
            {"optimizer/name": "sgd", "augment/flip": True, "epochs": 5},
            {"optimizer/name": "adam", "augment/flip": False, "epochs": 0},
        ]
    )
    np.testing.assert_array_equal(points, [[0, 0, 1, 1, 0.5], [1, 0, 0, 0, 0]])


def test_a_missing_value_is_in_the_middle_and_a_name_without_a_range_is_ignored() -> None:
    encoding = Encoding(
        {"optimizer/sgd/lr": FloatDistribution(0.0, 1.0), "a": CategoricalDistribution(["x", "y", "z"])}
    )
    assert encoding.num_columns == 4
    np.testing.assert_array_equal(encoding.encode([{"unknown": 3}]), [[ABSENT, 0, 0, 0]])


def test_no_recipes_are_no_points() -> None:
    assert Encoding({"lr": FloatDistribution(0.0, 1.0)}).encode([]).shape == (0, 1)
