"""The comparison of searchers in short: the recorded tables, and every method on a surrogate of the smaller one."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from compare import BUDGET, CASE, Case, epochs_until, interquartile_mean, interval, measures, missing, ratios
from peers import PEERS, PeerName, why_unsuitable
from peers.successive_halving import Job, SuccessiveHalving
from peers.values import Values, conditions
from record_curves import draw
from simulation import COMPARATORS, OURS, MethodName, Ours, make_method, search_of, simulate, with_baseline
from surrogates import CHANCE, SPACES, Surrogate, open_space, random_params, read_table

from cifar_tune.search.identity import open_record_in
from cifar_tune.search.search import Search

PACKAGES = {"Syne Tune": "syne_tune", "SMAC3": "smac", "DEHB": "dehb", "NePS": "neps"}

every_space = pytest.mark.parametrize("name", SPACES)


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return Surrogate("resnet9", "trees")


@every_space
def test_a_table_holds_whole_trainings_of_the_configurations_that_their_numbers_give(name: str) -> None:
    table = read_table(name)
    assert len(table.params) > 50
    assert table.accuracies.shape == (len(table.params), open_space(name).baselines[0].epochs)
    assert (table.accuracies >= CHANCE / 2).all()
    assert (table.accuracies < 1).all()
    assert (table.seconds > 0).all()
    for row in (0, 7, len(table.params) - 1):
        params, _ = draw(open_space(name), int(table.configs[row]))
        assert table.params[row] == pytest.approx(params)


@every_space
def test_second_seeds_differ_by_less_than_configurations_do(name: str) -> None:
    table = read_table(name)
    noise, ends = table.noise()
    assert len(noise) == len(ends) > 5
    assert noise[:, -1].std() < table.accuracies[:, -1].std() / 2


@pytest.mark.slow
def test_a_surrogate_knows_its_table_and_ranks_the_space(surrogate: Surrogate) -> None:
    table = surrogate.table
    correlation = np.corrcoef(surrogate.value(table.params), table.accuracies[:, -1])[0, 1]
    assert correlation > 0.8
    assert surrogate.quantile(surrogate.threshold(0.01)) == pytest.approx(0.01, abs=1e-3)
    assert surrogate.quantile(-1.0) == 1.0


def test_trainings_of_one_recipe_differ_by_their_seed_alone(surrogate: Surrogate) -> None:
    params = random_params("resnet9")[0]
    curves = [surrogate.train(params, np.random.default_rng(seed)) for seed in range(20)]
    assert len({curve.value for curve in curves}) == 1
    ends = [curve.accuracies[-1] for curve in curves]
    assert np.std(ends) > 0
    assert np.mean(ends) == pytest.approx(curves[0].value, abs=0.02)


def test_a_good_recipe_scatters_less_than_a_bad_one() -> None:
    surrogate, params = Surrogate("mini_resnet", "trees"), random_params("mini_resnet")[:200]
    by_worth = [params[i] for i in np.argsort(surrogate.value(params))]
    bad, good = (
        np.std([surrogate.train(recipe, np.random.default_rng(seed)).accuracies[-1] for seed in range(50)])
        for recipe in (by_worth[0], by_worth[-1])
    )
    assert good < bad / 2


@pytest.mark.parametrize("name", [*OURS, *COMPARATORS])
@pytest.mark.parametrize("num_workers", [1, 4])
def test_every_method_begins_with_the_baseline_and_spends_the_epochs_it_is_given(
    surrogate: Surrogate, name: MethodName, num_workers: int
) -> None:
    baseline = surrogate.table.params[0]
    space = with_baseline(open_space("resnet9"), baseline, search_of(name))
    method = make_method(name, space, seed=0)
    started: list[dict[str, Any]] = []
    start = method.start

    def noted() -> tuple[int, Mapping[str, Any]] | None:
        trial = start()
        assert trial is not None
        started.append(dict(trial[1]))
        return trial

    method.start = noted  # type: ignore[method-assign]
    found = simulate(method, surrogate, num_workers, 10 * surrogate.epochs, seed=0)
    assert started[0] == pytest.approx(baseline)
    assert found[0].num_epochs >= surrogate.epochs
    assert [best.num_epochs for best in found] == sorted(best.num_epochs for best in found)
    assert found[-1].num_epochs <= 10 * surrogate.epochs
    if name in ("random", "OptunaSearch"):
        assert 10 <= len(started) <= 10 + num_workers
    else:
        assert len(started) > 10 + num_workers, "trials were stopped early"


@pytest.mark.parametrize(
    ("sampler", "scheduler"), [("forecast", "forecast"), ("tpe", "forecast"), ("random", "asha-promotion")]
)
def test_the_same_seed_gives_the_same_search(surrogate: Surrogate, sampler: str, scheduler: str) -> None:
    search = Search.model_validate({"sampler": sampler, "scheduler": {"name": scheduler}})
    space = with_baseline(open_space("resnet9"), surrogate.table.params[0], search)
    first, again = (simulate(make_method("ours", space, 3), surrogate, 4, 160, seed=3) for _ in range(2))
    assert first == again


def test_a_paused_trial_goes_on_where_it_was_paused_in_a_simulation(surrogate: Surrogate) -> None:
    search = Search.model_validate({"sampler": "random", "scheduler": {"name": "asha-promotion"}})
    record = open_record_in(
        optuna.storages.InMemoryStorage(),
        "simulation",
        with_baseline(open_space("resnet9"), surrogate.table.params[0], search),
        0,
    )
    simulate(Ours(record, 12), surrogate, 2, 1000, seed=0)
    trials = record.trials()
    assert len(trials) == 12
    assert [[epoch["epoch"] for epoch in trial.curve] for trial in trials] == [
        list(range(1, trial.epochs + 1)) for trial in trials
    ]
    assert sum(trial.state == "completed" for trial in trials) in (2, 3, 4)
    assert {trial.state for trial in trials} == {"completed", "paused"}


class Scripted(SuccessiveHalving):
    """Asks for these configurations and epochs, one after the other, and then for nothing more."""

    def __init__(self, jobs: list[tuple[str, int]], params: Mapping[str, Any]) -> None:
        super().__init__()
        self._script, self._params = iter(jobs), params
        self.told: list[tuple[str, int, float]] = []

    def ask(self) -> Job | None:
        name, epochs = next(self._script, (None, 0))
        return Job(name, self._params, epochs, None) if name else None

    def tell(self, job: Job, accuracy: float) -> None:
        self.told.append((str(job.key), job.epochs, accuracy))


def test_a_promoted_trial_goes_on_after_its_last_epoch_and_keeps_its_curve(surrogate: Surrogate) -> None:
    params = surrogate.table.params[0]
    method = Scripted([("a", 2), ("b", 1), ("a", 16)], params)
    found = simulate(method, surrogate, 1, 1_000, seed=5)
    curves = [surrogate.train(params, np.random.default_rng((5, number))).accuracies for number in (0, 1)]
    assert method.told == [("a", 2, curves[0][1]), ("b", 1, curves[1][0]), ("a", 16, curves[0][15])]
    assert [best.num_epochs for best in found] == [17]


def test_epochs_that_are_trained_or_being_trained_are_not_trained_again(surrogate: Surrogate) -> None:
    method = Scripted([("a", 3), ("a", 2), ("a", 1), ("b", 1), ("a", 3)], surrogate.table.params[0])
    simulate(method, surrogate, 2, 1_000, seed=0)
    assert sorted(job[:2] for job in method.told) == [("a", 1), ("a", 2), ("a", 3), ("a", 3), ("b", 1)]


def test_a_worker_without_a_trial_is_asked_again_after_the_next_epoch(surrogate: Surrogate) -> None:
    class Waits(Scripted):
        def start(self) -> tuple[int, Mapping[str, Any]] | None:
            asked.append(len(epochs))
            return None if len(asked) == 2 else super().start()

        def report(self, number: int, epoch: int, accuracy: float, seconds: float) -> bool:
            epochs.append(epoch)
            return super().report(number, epoch, accuracy, seconds)

    asked: list[int] = []
    epochs: list[int] = []
    simulate(Waits([("a", 2), ("b", 1)], surrogate.table.params[0]), surrogate, 2, 1_000, seed=0)
    assert asked[:3] == [0, 0, 1]
    assert sorted(epochs) == [1, 1, 2]


def test_trials_of_one_number_share_their_luck(surrogate: Surrogate) -> None:
    params = surrogate.table.params[0]
    first, second = Scripted([("a", 16), ("b", 16)], params), Scripted([("x", 1), ("y", 1), ("y", 16)], params)
    for method in (first, second):
        simulate(method, surrogate, 1, 1_000, seed=3)
    assert first.told[1][2] == second.told[2][2]
    assert first.told[0][2] != first.told[1][2]


@every_space
def test_values_come_back_from_a_library_as_they_were(name: str) -> None:
    values = Values(open_space(name))
    for params in [*read_table(name).params[:5], *random_params(name)[:5]]:
        told = values.encode(params)
        back = values.decode({**values.full_baseline, **told})
        assert back == params
        assert [type(back[key]) for key in params] == [type(value) for value in params.values()]
    assert values.full_baseline.keys() == values.ranges.keys()


def test_conditions_are_read_off_the_draws() -> None:
    assert not conditions(open_space("resnet9"))
    assert conditions(open_space("mini_resnet")) == {
        "schedule/step/every": ("schedule/name", ["step"]),
        **{f"optimizer/{name}/lr": ("optimizer/name", [name]) for name in ("adam", "adamw", "sgd")},
        **{f"optimizer/{name}/weight_decay": ("optimizer/name", [name]) for name in ("adam", "adamw", "sgd")},
    }


@pytest.mark.slow
@every_space
@pytest.mark.parametrize("peer", PEERS)
def test_every_peer_begins_with_the_baseline_and_samples_recipes_of_the_space(name: str, peer: PeerName) -> None:
    for package in PACKAGES:
        if peer.startswith(package):
            pytest.importorskip(PACKAGES[package], reason="analysis/benchmark/peers.txt is not installed")
    space, surrogate = open_space(name), Surrogate(name, "trees")
    if why_unsuitable(peer, space):
        with pytest.raises(ValueError, match=peer.replace("+", r"\+")):
            make_method(peer, space, seed=0)
        return
    method, started = make_method(peer, space, seed=0), list[Mapping[str, Any]]()
    start = method.start

    def noted() -> tuple[int, Mapping[str, Any]] | None:
        trial = start()
        assert trial is not None
        started.append(trial[1])
        return trial

    method.start = noted  # type: ignore[method-assign]
    found = simulate(method, surrogate, 4, 5 * surrogate.epochs, seed=0)
    assert started[0] == space.baseline_trial(space.baselines[0]).params
    assert len(started) > 5 + 4
    assert found == simulate(make_method(peer, space, seed=0), surrogate, 4, 5 * surrogate.epochs, seed=0)
    for params in started:
        assert Values(space).decode(Values(space).encode(params)) == params


def test_epochs_are_counted_until_the_best_is_good_enough() -> None:
    found = pd.DataFrame({"seed": [0, 0, 1], "num_epochs": [16, 40, 20], "value": [0.5, 0.7, 0.6]})
    np.testing.assert_array_equal(epochs_until(found, 0.6), [40, 20])
    np.testing.assert_array_equal(epochs_until(found, 0.65), [40, np.inf])


def test_the_middle_half_is_averaged_and_its_interval_holds_it() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, np.inf])
    assert interquartile_mean(values) == 3.5
    low, high = interval(np.arange(40.0))
    assert low < 19.5 < high


def test_only_searches_that_were_not_run_are_run_the_first_seeds_of_all_cases_first() -> None:
    options = Namespace(
        spaces=["resnet9"], families=["trees"], baselines=["median"], workers=[4], methods=["ours", "random"], seeds=7
    )
    random = Case("resnet9", "trees", "median", 4, "random")
    done = pd.DataFrame(
        [("resnet9", "trees", "median", 4, "ours", seed) for seed in (0, 1, 5)], columns=[*CASE, "seed"]
    )
    assert list(missing(done, options)) == [
        (Case("resnet9", "trees", "median", 4, "ours"), [2, 3, 4]),
        (random, [0, 1, 2, 3, 4]),
        (Case("resnet9", "trees", "median", 4, "ours"), [6]),
        (random, [5, 6]),
    ]


def test_our_methods_are_compared_with_the_best_of_the_others(surrogate: Surrogate) -> None:
    top, best = surrogate.threshold(0.005), float(surrogate.values[-1])
    found = {"ours": (40, top), "random": (80, top), "OptunaSearch": (160, top), "ours, forecast": (20, best)}
    tables = {
        Case("resnet9", "trees", "median", 4, method): measures(  # type: ignore[arg-type]
            pd.DataFrame({"seed": [0, 1], "num_epochs": [epochs, epochs], "value": [value, value]}), surrogate
        )
        for method, (epochs, value) in found.items()
    }
    table = ratios(tables, "ours")
    assert list(table.index) == ["resnet9 trees median 4", "geometric mean"]
    assert table.loc["geometric mean"].to_dict() == {
        "top 5 %": "0.50 (0.50 to 0.50)",
        "top 1 %": "0.50 (0.50 to 0.50)",
        **{f"regret after {trainings}": "1.00 (1.00 to 1.00)" for trainings in (10, 15, BUDGET)},
    }
