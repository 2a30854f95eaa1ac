"""The forecast of final scores, from the scores of all trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.searches import NUMBERS, opened, score, search, written
from scipy.stats import spearmanr

from cifar_tune.search.driver import Driver
from cifar_tune.search.forecast import LEVELS, MAX_SCORES, MIN_TRIALS, Forecast, lowest, thinned
from cifar_tune.search.gaussian_process import Normal
from cifar_tune.search.record import Record
from cifar_tune.search.rungs import epochs_at
from cifar_tune.trials.trial import Trial


def start_trial(record: Record, num_epochs: int) -> int:
    """Start a trial and train so many of its epochs; its number."""
    trial = record.start_trial()
    for epoch in range(1, num_epochs + 1):
        accuracy = score(trial.params) * (0.5 + epoch / 32)
        record.add_epoch(trial.number, {"epoch": epoch, "val_accuracy": accuracy, "seconds": 1.0})
    return trial.number


def updated(record: Record) -> Forecast:
    assert record.forecast is not None
    record.forecast.fit()
    return record.forecast


def predicted(record: Record, recipes: Sequence[Mapping[str, Any]]) -> Normal:
    """The predictions for recipes now."""
    forecast = updated(record)
    model = forecast.fit()
    assert model is not None
    return model.predict(forecast.encoding.encode(recipes))


def values(record: Record, number: int) -> Mapping[str, Any]:
    return record.trials()[number].params


def test_a_search_that_is_too_short_for_a_model_imports_none_for_it(tmp_path: Path) -> None:
    """The last choice is made with one trial less than there will be."""
    forecast = opened(written(tmp_path, NUMBERS, "forecast")).forecast
    assert forecast is not None
    forecast.warm_up(MIN_TRIALS)
    assert "_process" not in vars(forecast)
    forecast.warm_up(MIN_TRIALS + 1)
    assert "_process" in vars(forecast)


def test_a_search_without_scores_has_no_forecast(tmp_path: Path) -> None:
    record = opened(written(tmp_path, NUMBERS, "random"))
    assert not updated(record).is_informed
    for _ in range(20):
        record.start_trial()
    assert len(updated(record).numbers) == 20
    assert not updated(record).is_informed
    assert updated(record).expect([0]) == {}


def test_a_running_trial_is_forecast_from_its_scores_so_far(tmp_path: Path) -> None:
    """The final score lies well above the score after the first epochs; other trials show by how much."""
    record = opened(written(tmp_path, NUMBERS, "random"))
    search(record, 20)
    number = start_trial(record, 2)
    expected = updated(record).expect([number])
    assert expected == {number: pytest.approx(score(values(record, number)), abs=0.05)}


def test_a_search_is_forecast_before_any_trial_has_ended(tmp_path: Path) -> None:
    record = opened(written(tmp_path, NUMBERS, "random"))
    numbers = [start_trial(record, 2) for _ in range(20)]
    predictions = updated(record).expect(numbers)
    truth = [score(values(record, number)) for number in numbers]
    assert spearmanr([predictions[number] for number in numbers], truth).statistic > 0.9


def test_a_recipe_that_was_not_tried_is_forecast_from_its_neighbours(tmp_path: Path) -> None:
    record = opened(written(tmp_path, NUMBERS, "random"))
    search(record, 40)
    recipes = [{"optimizer/lr": lr, "label_smoothing": 0.1} for lr in (1e-4, 1e-3, 1e-2, 5e-2)]
    assert predicted(record, recipes).mean == pytest.approx([score(recipe) for recipe in recipes], abs=0.04)


def test_a_completed_trial_is_expected_where_it_ended_when_its_neighbours_agree(tmp_path: Path) -> None:
    record = opened(written(tmp_path, NUMBERS, "random"))
    scores = np.array(search(record, 30))
    forecast = updated(record)
    predictions = np.array(list(forecast.expect(forecast.numbers).values()))
    best = np.argsort(-scores)[:10]
    assert predictions[best] == pytest.approx(scores[best], abs=0.02)


def test_a_trial_without_scores_makes_forecasts_near_it_less_uncertain(tmp_path: Path) -> None:
    record = opened(written(tmp_path, NUMBERS, "random"))
    search(record, 12)
    recipe = {"optimizer/lr": 2e-5, "label_smoothing": 0.45}
    before = predicted(record, [recipe]).sd
    record.study.enqueue_trial(recipe)
    assert dict(record.start_trial().params) == recipe
    assert predicted(record, [recipe]).sd < before


def test_the_end_of_a_trial_is_the_mean_of_its_last_epochs(tmp_path: Path) -> None:
    record = opened(written(tmp_path, NUMBERS, "random"))
    (end,) = search(record, 1)
    assert updated(record).scores[0] == pytest.approx([end * (0.5 + 2 / 32), end * (1 - 1 / 64)])


def test_a_trial_that_broke_down_has_chance_accuracy_at_every_level(tmp_path: Path) -> None:
    record = opened(written(tmp_path, NUMBERS, "random"))
    search(record, 8)
    record.finish_trial(record.start_trial().number, "diverged")
    assert updated(record).scores[-1] == pytest.approx([0.1, 0.1])


def test_a_failed_trial_is_ignored(tmp_path: Path) -> None:
    record = opened(written(tmp_path, NUMBERS, "random"))
    record.finish_trial(record.start_trial().number, "failed", "error")
    forecast = updated(record)
    assert (forecast.has_score(0), forecast.is_informed) == (False, False)


def test_a_resumed_search_has_the_same_forecast(tmp_path: Path) -> None:
    record = opened(written(tmp_path, NUMBERS, "random"))
    search(record, 10)
    other = Forecast(record.space.ranges, record.space.search.scheduler.levels(record.space.baselines[0]))
    for trial in record.trials():
        other.note(trial)
    other.fit()
    assert updated(record).expect(range(10)) == other.expect(range(10))


def test_a_score_counts_at_once_though_the_model_was_fitted_before(tmp_path: Path) -> None:
    record = opened(written(tmp_path, NUMBERS, "random"))
    search(record, 20)
    before = updated(record)
    number = start_trial(record, 2)
    expected = before.expect([number])[number]
    assert expected == pytest.approx(updated(record).expect([number])[number], abs=0.01)
    assert expected == pytest.approx(score(values(record, number)), abs=0.05)


def test_of_thousands_of_trials_the_model_keeps_the_best() -> None:
    scores = np.random.default_rng(0).random((1000, 2))
    scores[200:, 1] = np.nan
    rows = thinned(scores)
    assert len(rows) == len(set(rows.tolist()))
    assert MAX_SCORES - 4 <= (~np.isnan(scores[rows])).sum() <= MAX_SCORES
    assert set(np.argsort(-np.nan_to_num(scores[:, 1]))[: MAX_SCORES // 4]) <= set(rows.tolist())
    assert set(range(len(scores) - MAX_SCORES // 4, len(scores))) <= set(rows.tolist())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 16}, [2]),
        ({"epochs": 20}, [3]),
        ({"epochs": 8}, [1]),
        ({"epochs": 1}, [1]),
        ({"epochs": 20, "finetune/name": "two-phase", "finetune/head_epochs": 10}, [12]),
    ],
    ids=str,
)
def test_a_level_is_the_epoch_that_reaches_its_fraction(
    tmp_path: Path, settings: dict[str, int | str], expected: list[int]
) -> None:
    recipe = written(tmp_path, NUMBERS, "random").baselines[0]
    assert epochs_at(recipe.replace(settings), LEVELS) == expected


def test_low_scores_are_raised_to_twice_the_best_ones_distance_below_the_median() -> None:
    scores = np.array([[0.1, np.nan], [0.5, 0.5], [0.5, 0.6], [0.6, np.nan]])
    np.testing.assert_allclose(lowest(scores), [0.3, 0.45])


STOPPING = NUMBERS.replace('sampler="SAMPLER"', 'sampler="SAMPLER", scheduler={"name": "forecast", "let_through": 0}')


def curve(params: Mapping[str, Any], slow: float) -> list[dict[str, float]]:
    """A learning curve whose early scores are too low by `slow`."""
    return [
        {"epoch": e, "val_accuracy": score(params) * (0.5 + e / 32) - slow * (1 - e / 16), "seconds": 1.0}
        for e in range(1, 17)
    ]


def drive(driver: Driver, slow: float = 0.0) -> Trial:
    """Run the next trial as far as the driver lets it."""
    trial = driver.next_trial()
    for metrics in curve(trial.params, slow):
        if not driver.add_epoch(trial.number, metrics, {}):
            break
    return driver.record.trials()[trial.number]


def test_a_trial_with_a_low_forecast_is_stopped_at_the_first_level(tmp_path: Path) -> None:
    record = opened(written(tmp_path, STOPPING, "random"))
    trials = [drive(Driver(record, 40, [])) for _ in range(40)]
    later = trials[20:]
    assert {trial.epochs for trial in later} == {2, 16}
    worst, best = (sorted(later, key=lambda trial: score(trial.params))[i] for i in (0, -1))
    assert (worst.state, worst.epochs) == ("pruned", 2)
    assert best.epochs == 16


def test_a_trial_that_starts_slowly_for_a_known_reason_goes_on(tmp_path: Path) -> None:
    """Completed trials show that strong smoothing makes a trial start low and end as high as others."""
    record = opened(written(tmp_path, STOPPING.replace('"let_through"', '"keep": 0.5, "let_through"'), "random"))
    recipes = [{"optimizer/lr": 10.0**power, "label_smoothing": s} for power in (-4, -3, -2) for s in (0.0, 0.5)]
    drive(Driver(record, 1, []))  # the baseline
    for recipe in 2 * recipes:
        record.study.enqueue_trial(recipe)
        trial = record.start_trial()
        for metrics in curve(recipe, slow=0.6 * recipe["label_smoothing"]):
            record.add_epoch(trial.number, metrics)
        record.finish_trial(trial.number, "completed")
    fast, slow = {"optimizer/lr": 2e-4, "label_smoothing": 0.0}, {"optimizer/lr": 2e-2, "label_smoothing": 0.5}
    trials = []
    for recipe in (fast, slow):
        record.study.enqueue_trial(recipe)
        trials.append(drive(Driver(record, 10**6, []), slow=0.6 * recipe["label_smoothing"]))
    assert trials[0].scores[0] > trials[1].scores[0] + 0.1
    assert [trial.epochs for trial in trials] == [2, 16]


def test_no_trial_is_compared_with_one_that_failed_after_its_rung(tmp_path: Path) -> None:
    record = opened(written(tmp_path, STOPPING, "random"))
    driver = Driver(record, 30, [])
    for _ in range(14):
        drive(driver)
    number = driver.next_trial().number
    for epoch in (1, 2):
        assert driver.add_epoch(number, {"epoch": epoch, "val_accuracy": 0.9, "seconds": 1.0}, {})
    driver.finish(number, "failed", error="error")
    assert drive(driver).is_over


def test_a_search_with_a_failed_trial_that_was_never_judged_is_resumed(tmp_path: Path) -> None:
    record = opened(written(tmp_path, STOPPING, "random"))
    search(record, 12)
    record.finish_trial(start_trial(record, 3), "failed", "error")
    assert drive(Driver(record, 20, [])).is_over


def test_rungs_may_be_listed_in_any_order(tmp_path: Path) -> None:
    record = opened(
        written(tmp_path, STOPPING.replace('"let_through"', '"rungs": (0.5, 0.25), "let_through"'), "random")
    )
    assert record.space.search.scheduler.levels(record.space.baselines[0]) == (0.25, 0.5)
    assert all(drive(Driver(record, 20, [])).is_over for _ in range(20))


def test_a_search_that_is_resumed_judges_nothing_twice(tmp_path: Path) -> None:
    record = opened(written(tmp_path, STOPPING, "random"))
    states = [drive(Driver(record, 20, [])).state for _ in range(20)]
    Driver(record, 20, [])
    assert [trial.state for trial in record.trials()] == states
