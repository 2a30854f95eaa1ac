"""The rules that a search infers from trials that fail, and what it leaves out by them."""

import random
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pytest
from helpers.made_trials import trial as made
from helpers.records import driver_of, metrics, written
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cifar_tune.search.crashes import Crashes, infer_rule, kind_of, reason_of
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record_in
from cifar_tune.search.stand_ins import RandomTrial
from cifar_tune.trials.trial import Trial

RANGES: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "width": CategoricalDistribution([0.5, 1.0, 2.0]),
    "batch": IntDistribution(16, 512),
}
Trials = Callable[..., list[Trial]]

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "sgd", "lr": 0.01},
    schedule={"name": "constant"}, epochs=2, batch_size=32, train_images=64,
)

def space(trial):
    return BASELINE.replace({
        "optimizer/lr": trial.suggest_float("optimizer/lr", 1e-3, 1e-1, log=True),
        "model/width": trial.suggest_categorical("model/width", [0.5, 1.0, 2.0]),
    })

SEARCH = Search(num_trials=40, scheduler={"name": "none"}, sampler=SAMPLER)
"""

PRODUCT = (
    SPACE.replace('suggest_categorical("model/width", [0.5, 1.0, 2.0])', 'suggest_float("model/width", 0.5, 2.0)')
    .replace(
        '        "model/width"',
        '        "batch_size": trial.suggest_int("batch_size", 50, 400),\n        "model/width"',
    )
    .replace("batch_size=32, train_images=64", "batch_size=100, train_images=500")
)


def failed(*params: dict[str, Any]) -> list[Trial]:
    trials = [made(i, None, "failed", params=each, error="KeyError: 'x'") for i, each in enumerate(params, start=1)]
    return [Trial(**{**vars(each), "ranges": {name: RANGES[name] for name in each.params}}) for each in trials]


def rule_of(crashes: list[dict[str, Any]], trained: list[dict[str, Any]]) -> str:
    return str(infer_rule(failed(*crashes), trained))


def test_a_choice_that_always_fails_is_left_out_whatever_the_other_values() -> None:
    crashes = [{"lr": 0.01, "width": 2.0, "batch": 64}, {"lr": 0.02, "width": 2.0, "batch": 128}]
    trained = [{"lr": 0.015, "width": 1.0, "batch": 100}, {"lr": 0.05, "width": 0.5, "batch": 32}]
    rule = infer_rule(failed(*crashes), trained)
    assert rule is not None
    assert str(rule) == "width=2"
    assert rule.covers({"lr": 1e-4, "width": 2.0, "batch": 512})
    assert not rule.covers({"lr": 0.01, "width": 1.0, "batch": 64})


def test_a_number_that_fails_from_some_size_on_is_left_out_from_there() -> None:
    crashes = [{"lr": 0.01, "width": 1.0, "batch": 400}, {"lr": 0.001, "width": 2.0, "batch": 300}]
    trained = [{"lr": 0.005, "width": 1.0, "batch": 200}, {"lr": 0.002, "width": 2.0, "batch": 64}]
    assert rule_of(crashes, trained) == "batch of 300 or more"


def test_values_that_fail_only_together_are_left_out_together() -> None:
    crashes = [{"lr": 0.08, "width": 2.0}, {"lr": 0.05, "width": 2.0}]
    trained = [{"lr": 0.001, "width": 2.0}, {"lr": 0.09, "width": 1.0}, {"lr": 0.06, "width": 0.5}]
    assert rule_of(crashes, trained) == "lr of 0.05 or more and width=2"


def test_where_a_trial_between_them_trained_their_values_are_not_the_cause() -> None:
    crashes = [{"lr": 0.01, "width": 2.0}, {"lr": 0.03, "width": 2.0}]
    assert infer_rule(failed(*crashes), [{"lr": 0.02, "width": 2.0}]) is None


def test_before_any_trial_has_trained_nothing_is_left_out() -> None:
    assert infer_rule(failed({"lr": 0.01}, {"lr": 0.03}), []) is None


def test_a_single_failure_and_failures_of_two_kinds_leave_nothing_out() -> None:
    crashes = Crashes()
    one, two = failed({"width": 2.0}, {"width": 2.0})
    crashes.read([one, made(5, 0.5, params={"width": 1.0})])
    assert not crashes.rules
    crashes.read([one, Trial(**{**vars(two), "error": "ValueError: y"}), made(5, 0.5, params={"width": 1.0})])
    assert not crashes.rules
    crashes.read([one, two, made(5, 0.5, params={"width": 1.0})])
    assert str(crashes.rule_for({"width": 2.0})) == "width=2"
    assert crashes.rule_for({"width": 1.0}) is None


def at_random(num_trials: int, chance: float, seed: int) -> list[Trial]:
    """Trials with random values, which fail for reasons that have nothing to do with these."""
    rng, trials = random.Random(seed), []
    for number in range(1, num_trials + 1):
        fails = rng.random() < chance
        params = RandomTrial(rng)
        params.suggest_float("lr", 1e-4, 1e-1, log=True)
        params.suggest_categorical("width", [0.5, 1.0, 2.0])
        params.suggest_int("batch", 16, 512)
        trial = made(number, None if fails else 0.5, "failed" if fails else "completed", params=params.params)
        trials.append(replace(trial, ranges=RANGES, error="KeyError: 'x'" if fails else None))
    return trials


def share_left_out(trials: list[Trial]) -> float:
    """The share of random draws that are left out after these trials."""
    crashes = Crashes()
    crashes.read(trials)
    return fmean(crashes.rule_for(draw.params) is not None for draw in at_random(200, 0, seed=1000))


def test_failures_that_have_no_reason_in_the_values_leave_out_little_and_less_with_more_trials() -> None:
    shares = [fmean(share_left_out(at_random(number, 0.05, seed)) for seed in range(5)) for number in (50, 400)]
    assert shares[0] < 0.15
    assert shares[1] < 0.03


def test_where_half_of_all_trials_fail_there_are_draws_left() -> None:
    assert all(share_left_out(at_random(number, 0.5, seed)) < 1 for number in (4, 8, 20, 100) for seed in range(3))


def test_draws_between_the_last_that_trained_and_the_first_that_failed_are_left_out_in_part() -> None:
    """Otherwise a sampler that likes them large would fail at each step from 300 down."""
    crashes = Crashes()
    trained = [
        replace(made(n, 0.5, params={"batch": batch}), ranges={"batch": RANGES["batch"]})
        for n, batch in enumerate((64, 100, 150), start=10)
    ]
    crashes.read([*failed({"batch": 300}, {"batch": 400}), *trained])
    assert str(crashes.rule_for({"batch": 300})) == "batch of 300 or more"
    assert str(crashes.rule_for({"batch": 290})) == "values near those of 2 failed trials"
    assert crashes.rule_for({"batch": 155}) is None


def test_messages_of_one_kind_differ_in_numbers_paths_quoted_words_and_ids_only() -> None:
    error = "RuntimeError: size 12 at /data/a/1.pt, 0x7f10"
    assert kind_of(error) == kind_of("RuntimeError: size 7 at /other/b.pt, 0x01")
    assert kind_of(error) != kind_of("RuntimeError: shape 12")
    assert kind_of("RuntimeError: bad block 'abc'") == kind_of("RuntimeError: bad block 'x'")
    assert kind_of("The actor 8d2e4fab is unavailable") == kind_of("The actor b1-ffee is unavailable")
    assert kind_of("It can't be") != kind_of("It can't do it, it isn't")


def traceback_of(function: Callable[[str], None], word: str) -> str:
    try:
        function(word)
    except (RuntimeError, ValueError):
        return traceback.format_exc()
    raise AssertionError


def test_errors_with_a_traceback_are_of_one_kind_if_one_line_raised_the_same_type() -> None:
    def one(word: str) -> None:
        raise RuntimeError(f"bad {word}\n\n  {word} is no block")

    def other(word: str) -> None:
        raise RuntimeError(f"bad {word}")

    def chained(word: str) -> None:
        try:
            one(word)
        except RuntimeError as error:
            raise ValueError(word) from error

    kinds = [{kind_of(traceback_of(function, word)) for word in ("a", "b")} for function in (one, other, chained)]
    assert [len(kind) for kind in kinds] == [1, 1, 1]
    assert len(set.union(*kinds)) == 3


def test_the_reason_is_the_last_line_without_modules_and_full_stop() -> None:
    error = "Traceback ...\nRuntimeError: size 12 at /data/a/1.pt, 0x7f10"
    assert reason_of(error + ".\n\n") == "RuntimeError: size 12 at /data/a/1.pt, 0x7f10"
    assert reason_of("cifar_tune.errors.MachineError: No room.") == "No room"
    assert reason_of("torch.cuda.AcceleratorError: No kernel.") == "AcceleratorError: No kernel"
    assert reason_of(None) == "no reason is known"


def run(driver: Driver, fails: Callable[[Trial], bool]) -> list[Trial]:
    """Train all trials that are left; those that fail."""
    failures = []
    while driver.num_left and driver.fault is None:
        trial = driver.next_trial()
        if fails(trial):
            driver.finish(trial.number, "failed", error=f"KeyError: 'block {trial.number}'")
            failures.append(trial)
            continue
        for epoch in (1, 2):
            driver.add_epoch(trial.number, metrics(epoch, 0.3 + 0.1 * float(trial.params["model/width"])), {})
    return failures


@pytest.mark.parametrize("sampler", ["forecast", "tpe", "random"])
def test_after_the_second_failure_no_sampler_draws_the_like_again(tmp_path: Path, sampler: str) -> None:
    """The model would take wide networks for the best."""
    space = written(tmp_path, SPACE.replace("SAMPLER", repr(sampler)))
    driver = driver_of(open_record_in(optuna.storages.InMemoryStorage(), "s", space, 0), 40)
    failures = run(driver, lambda trial: trial.params["model/width"] == 2.0)
    assert len(failures) == 2
    assert driver.fault is None
    trials = driver.record.trials()
    assert len(trials) == 40
    assert trials[failures[1].number].facts["left_out"] == "model/width=2"


def test_a_rule_holds_in_a_search_that_is_opened_again(tmp_path: Path) -> None:
    storage, space = optuna.storages.InMemoryStorage(), written(tmp_path, SPACE.replace("SAMPLER", "'random'"))
    run(driver_of(open_record_in(storage, "s", space, 0), 20), lambda trial: trial.params["model/width"] == 2.0)
    crashes = open_record_in(storage, "s", space, 0).crashes
    assert str(crashes.rule_for({"optimizer/lr": 0.01, "model/width": 2.0})) == "model/width=2"


@pytest.mark.parametrize("sampler", ["forecast", "tpe", "random"])
@pytest.mark.parametrize("region", ["large products", "two corners"])
def test_a_region_of_another_shape_than_a_box_costs_few_trials(tmp_path: Path, sampler: str, region: str) -> None:
    """The scores rise towards the region, which is a third of the space, and each failure names another block."""

    def fails(trial: Trial) -> bool:
        size, width = trial.recipe.batch_size / 400, trial.params["model/width"] / 2
        return bool(size * width > 0.4375 if region == "large products" else abs(size - width) > 0.4)

    space = written(tmp_path, PRODUCT.replace("SAMPLER", repr(sampler)))
    driver = driver_of(open_record_in(optuna.storages.InMemoryStorage(), "s", space, 0), 60)
    failures = run(driver, fails)
    assert driver.fault is None
    assert len(driver.record.trials()) == 60
    assert len(failures) <= 12
