"""The values of the next trial, with every sampler."""

import random
from collections import Counter
from pathlib import Path
from typing import cast, get_args

import numpy as np
import optuna
import pytest
from helpers.searches import CONDITIONAL, NUMBERS, opened, search, written
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial
from scipy.stats import chi2_contingency

from cifar_tune.errors import UserError
from cifar_tune.search.acquisition import expected_improvement
from cifar_tune.search.draws import NoTrialLeftError
from cifar_tune.search.gaussian_process import Normal
from cifar_tune.search.identity import open_record_in
from cifar_tune.search.search import SamplerName
from cifar_tune.search.stand_ins import NeighbourTrial, RandomTrial


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_every_sampler_searches_after_the_baseline(tmp_path: Path, sampler: SamplerName) -> None:
    record = opened(written(tmp_path, NUMBERS, sampler))
    scores = search(record, 16)
    assert record.trials()[0].is_baseline
    assert len({trial.params["optimizer/lr"] for trial in record.trials()}) > 12  # the best may be tried again
    assert max(scores) > scores[0]


@pytest.mark.parametrize("sampler", ["forecast", "tpe", "random"])
def test_the_same_seed_gives_the_same_trials(tmp_path: Path, sampler: str) -> None:
    first, again, other = (search(opened(written(tmp_path, NUMBERS, sampler), seed), 14) for seed in (0, 0, 1))
    assert first == again
    assert first[1:] != other[1:]


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_any_seed_is_taken(tmp_path: Path, sampler: SamplerName) -> None:
    """Numpy takes seeds below 2**32 alone."""
    assert len(search(opened(written(tmp_path, NUMBERS, sampler), seed=10**30), 3)) == 3


@pytest.mark.parametrize("sampler", ["gp", "cmaes", "qmc"])
def test_a_sampler_without_conditions_refuses_a_conditional_space(tmp_path: Path, sampler: str) -> None:
    with pytest.raises(UserError, match=rf"{sampler} cannot search a conditional space \(label_smoothing is not in"):
        written(tmp_path, CONDITIONAL, sampler)


def test_cmaes_refuses_choices(tmp_path: Path) -> None:
    text = NUMBERS.replace('trial.suggest_float("label_smoothing", 0.0, 0.5)', "0.0").replace(
        '"label_smoothing": 0.0', '"batch_size": trial.suggest_categorical("batch_size", [50, 100])'
    )
    with pytest.raises(UserError, match="cmaes searches numbers only, and batch_size is a choice"):
        written(tmp_path, text, "cmaes")


@pytest.mark.parametrize("sampler", ["forecast", "tpe", "random"])
def test_the_other_samplers_search_a_conditional_space(tmp_path: Path, sampler: str) -> None:
    record = opened(written(tmp_path, CONDITIONAL, sampler))
    search(record, 20)
    assert {"label_smoothing" in trial.params for trial in record.trials()} == {True, False}


@pytest.mark.slow
def test_the_forecast_sampler_finds_better_trials_than_random_search(tmp_path: Path) -> None:
    bests = {
        sampler: [max(search(opened(written(tmp_path, NUMBERS, sampler), seed), 30)) for seed in range(3)]
        for sampler in ("forecast", "random")
    }
    assert min(bests["forecast"]) > 0.895
    assert np.mean(bests["forecast"]) > np.mean(bests["random"])


@pytest.mark.slow
def test_the_forecast_sampler_stays_near_the_best_where_one_value_is_searched(tmp_path: Path) -> None:
    """The distance that it keeps from all trials must not fill a small space."""
    text = NUMBERS.replace('trial.suggest_float("label_smoothing", 0.0, 0.5)', "0.0")
    scores = [search(opened(written(tmp_path, text, "forecast"), seed), 24) for seed in range(3)]
    assert np.mean([np.median(each[10:]) for each in scores]) > 0.885  # of at most 0.89


@pytest.mark.slow
def test_the_forecast_sampler_tries_every_recipe_once(tmp_path: Path) -> None:
    text = NUMBERS.replace('trial.suggest_float("optimizer/lr", 1e-5, 1e-1, log=True)', "1e-3").replace(
        'trial.suggest_float("label_smoothing", 0.0, 0.5)',
        'trial.suggest_float("label_smoothing", 0.0, 0.5, step=0.01)',
    )
    text = text.replace('"optimizer/lr": 1e-3,', "")
    record = opened(written(tmp_path, text, "forecast"))
    for _ in range(51):
        trial = record.start_trial()
        for epoch in range(1, 17):
            metrics = {"epoch": epoch, "val_accuracy": 0.5 - trial.params["label_smoothing"] / 2, "seconds": 1.0}
            record.add_epoch(trial.number, metrics)
        record.finish_trial(trial.number, "completed")
    assert len({round(trial.params["label_smoothing"], 2) for trial in record.trials()}) == 51
    with pytest.raises(NoTrialLeftError):
        record.start_trial()


def test_a_space_without_sampled_values_has_one_trial(tmp_path: Path) -> None:
    text = NUMBERS.replace('trial.suggest_float("optimizer/lr", 1e-5, 1e-1, log=True)', "1e-3").replace(
        'trial.suggest_float("label_smoothing", 0.0, 0.5)', "0.0"
    )
    record = opened(written(tmp_path, text, "forecast"))
    number = record.start_trial().number
    record.add_epoch(number, {"epoch": 1, "val_accuracy": 0.5, "seconds": 1.0})
    record.finish_trial(number, "completed")
    with pytest.raises(NoTrialLeftError):
        record.start_trial()
    assert len(record.trials()) == 1
    assert record.num_left(14) == 0


def test_a_resumed_trial_keeps_its_values(tmp_path: Path) -> None:
    storage = optuna.storages.InMemoryStorage()
    space = written(tmp_path, NUMBERS, "forecast")
    record = open_record_in(storage, "numbers", space, 0)
    search(record, 15)
    trial = record.start_trial()
    record.interrupt_all()
    assert open_record_in(storage, "numbers", space, 0).start_trial().params == trial.params


def test_a_resumed_search_goes_on_with_the_same_sequence(tmp_path: Path) -> None:
    """A low-discrepancy sequence is one only as a whole."""
    storage, space = optuna.storages.InMemoryStorage(), written(tmp_path, NUMBERS, "qmc")
    for _ in range(2):
        resumed = open_record_in(storage, "numbers", space, 0)
        search(resumed, 5)
    whole = opened(space)
    search(whole, 10)
    assert [trial.params for trial in resumed.trials()] == [trial.params for trial in whole.trials()]


def test_an_interrupted_trial_takes_no_point_of_the_sequence_when_it_is_resumed(tmp_path: Path) -> None:
    storage, space = optuna.storages.InMemoryStorage(), written(tmp_path, NUMBERS, "qmc")
    interrupted = open_record_in(storage, "numbers", space, 0)
    search(interrupted, 3)
    interrupted.start_trial()
    interrupted.interrupt_all()
    resumed = open_record_in(storage, "numbers", space, 0)
    search(resumed, 6)
    whole = opened(space)
    search(whole, 9)
    assert [trial.params for trial in resumed.trials()] == [trial.params for trial in whole.trials()]


def test_a_neighbour_changes_the_given_share_of_values_by_the_given_distance(tmp_path: Path) -> None:
    space = written(tmp_path, NUMBERS, "random")
    rng = random.Random(0)
    near = {"optimizer/lr": 1e-3, "label_smoothing": 0.25}
    trials = [NeighbourTrial(rng, near, share=0.5, distance=0.1) for _ in range(1000)]
    for trial in trials:
        space.sample(cast(BaseTrial, trial))
    moved = [trial.params["label_smoothing"] for trial in trials if trial.params["label_smoothing"] != 0.25]
    assert len(moved) == pytest.approx(500, abs=60)
    assert np.std(moved) == pytest.approx(0.05, rel=0.15)


def test_values_that_the_centre_of_a_neighbour_lacks_are_random(tmp_path: Path) -> None:
    space = written(tmp_path, CONDITIONAL, "random")
    rng = random.Random(0)
    trials = [NeighbourTrial(rng, {"optimizer/lr": 1e-3, "augment/flip": False}, 0.0, 0.1) for _ in range(20)]
    for trial in trials:
        space.sample(cast(BaseTrial, trial))
    assert all(trial.params == {"optimizer/lr": 1e-3, "augment/flip": False} for trial in trials)
    other = NeighbourTrial(rng, {"augment/flip": True}, 0.0, 0.1)
    space.sample(cast(BaseTrial, other))
    assert other.params.keys() == {"optimizer/lr", "augment/flip", "label_smoothing"}


def test_random_values_are_uniform_over_their_ranges(tmp_path: Path) -> None:
    space = written(tmp_path, NUMBERS, "random")
    rng = random.Random(0)
    trials = [RandomTrial(rng) for _ in range(2000)]
    for trial in trials:
        space.sample(cast(BaseTrial, trial))
    logs = np.log10([trial.params["optimizer/lr"] for trial in trials])
    assert np.histogram(logs, bins=4, range=(-5, -1))[0] == pytest.approx([500] * 4, rel=0.15)


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(0.0, 0.4, step=0.1),
        IntDistribution(2, 10, step=2),
        IntDistribution(1, 8, log=True),
        CategoricalDistribution([True, False]),
    ],
    ids=str,
)
def test_random_values_are_as_frequent_as_those_of_optuna(distribution: BaseDistribution) -> None:
    """At the ends of a range, too, where rounding to the nearest step would give half as many."""
    ours, theirs = RandomTrial(random.Random(0)), optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study()
    trial = optuna.trial.create_trial(value=0.0)
    counts = Counter(ours.choose("x", distribution) for _ in range(4000))
    expected = Counter(theirs.sample_independent(study, trial, "x", distribution) for _ in range(4000))
    assert counts.keys() == expected.keys()  # to the bit
    assert chi2_contingency([[counts[value], expected[value]] for value in counts]).pvalue > 0.001


def test_the_expected_improvement_grows_with_mean_and_uncertainty() -> None:
    improvements = expected_improvement(Normal(np.array([0.9, 0.5, 0.5]), np.array([1e-12, 1e-12, 0.01])), 0.6)
    assert improvements == pytest.approx([0.3, 0.0, 0.0083], abs=1e-4)
