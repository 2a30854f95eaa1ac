"""The goal of a search: a second objective and limits, in real Optuna studies, and once through Ray."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
import torch
from helpers.command_line import Call
from helpers.records import RISING, driver_of, metrics, written
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from cifar_tune.commands.trial_files import BestWeights
from cifar_tune.errors import UserError
from cifar_tune.recipe.layers import conv_block
from cifar_tune.recipe.models import MiniResNet
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.report.findings import Findings
from cifar_tune.report.sentences import headline
from cifar_tune.report.text import format_report
from cifar_tune.search.draws import REFUSED
from cifar_tune.search.driver import Driver
from cifar_tune.search.extend import extend
from cifar_tune.search.identity import open_record, open_record_in
from cifar_tune.search.limits import check_limits, excess
from cifar_tune.search.search import ONE_OBJECTIVE, SamplerName
from cifar_tune.store import STATE, WEIGHTS, Store, open_store
from cifar_tune.training.network_size import count_layers, count_macs, count_parameters
from cifar_tune.training.scores import SCORE_NAMES, ScoreName, metric_name
from cifar_tune.trials.goal import Goal
from cifar_tune.trials.ranking import best_trial, pareto_front
from cifar_tune.trials.reading import PRIOR
from cifar_tune.trials.trial import State, Trial

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet", "width": 0.5}, optimizer={"name": "sgd", "lr": 0.1},
    schedule={"name": "constant"}, epochs=4, batch_size=32, train_images=64,
)

def space(trial):
    lr = trial.suggest_float("optimizer/lr", 1e-3, 1.0, log=True)
    return BASELINE.replace({"optimizer/lr": lr, "model/width": trial.suggest_float("model/width", 0.1, 1.0)})

SEARCH = Search(num_trials=4, scheduler={"name": "asha", "rungs": (0.5,), "let_through": 0}, GOAL)
"""
PLAIN = SPACE.replace(", GOAL", "")
BOTH = 'minimize="num_parameters", limits={"num_parameters": 100_000, "seconds": 3}'
TOO_SLOW = 'minimize="num_parameters", limits={"seconds": 3}'
OF_TWO = sorted(set(get_args(SamplerName)) - set(ONE_OBJECTIVE))
NUM_BASELINE = 55_250  # parameters


def text(goal: str, sampler: str = "tpe") -> str:
    return SPACE.replace("GOAL", f'{goal}, sampler="{sampler}"')


@pytest.fixture
def memory() -> InMemoryStorage:
    """A storage that is faster than a store's database."""
    return InMemoryStorage()


def opened(storage: InMemoryStorage, folder: Path, goal: str, sampler: str = "tpe", name: str = "tiny") -> Driver:
    """Open the search as a new process would."""
    return driver_of(open_record_in(storage, name, written(folder, text(goal, sampler)), 0))


def in_optuna(storage: str | InMemoryStorage, name: str = "tiny") -> list[FrozenTrial]:
    return optuna.load_study(study_name=name, storage=storage).trials


def run_next(driver: Driver, accuracies: Sequence[float] = RISING, seconds: float = 0.5) -> Trial:
    """Run the next trial; its worker reports the true number of parameters."""
    trial = driver.next_trial()
    facts = {"num_parameters": count_parameters(trial.recipe.model.build(10))}
    for epoch, accuracy in enumerate(accuracies, start=trial.epochs + 1):
        if not driver.add_epoch(trial.number, {**metrics(epoch, accuracy), "seconds": seconds}, facts):
            break
    return next(each for each in driver.record.trials() if each.number == trial.number)


# Goals


@pytest.mark.parametrize("score", SCORE_NAMES)
def test_optuna_has_the_score_of_the_search_by_its_name(
    memory: InMemoryStorage, tmp_path: Path, score: ScoreName
) -> None:
    driver = opened(memory, tmp_path, f'score="{score}"')
    trial = driver.next_trial()
    for epoch, accuracy in enumerate(RISING, start=1):
        driver.add_epoch(trial.number, {**metrics(epoch, accuracy), metric_name(score): accuracy / 2}, {})
    (ended,) = driver.record.trials()
    assert (ended.goal.score, ended.state, ended.score) == (score, "completed", RISING[-1] / 2)
    frozen = in_optuna(memory)[0]
    assert frozen.values == [ended.score]
    assert list(frozen.intermediate_values.values()) == [value / 2 for value in RISING]
    assert optuna.load_study(study_name="tiny", storage=memory).metric_names == [metric_name(score)]


def test_a_pruning_rule_compares_scores(memory: InMemoryStorage, tmp_path: Path) -> None:
    """The second trial has the better accuracy and the worse macro F1, so it is stopped."""
    driver = opened(memory, tmp_path, 'score="macro_f1"')
    for f1 in (0.5, 0.4):
        trial = driver.next_trial()
        for epoch in range(1, 5):
            row = {**metrics(epoch, 1 - f1), "val_macro_f1": f1, "val_score_error": 0.01}
            if not driver.add_epoch(trial.number, row, {}):
                break
    assert [trial.state for trial in driver.record.trials()] == ["completed", "pruned"]


def test_a_goal_of_an_older_version_is_for_accuracy() -> None:
    assert Goal.model_validate({"minimize": None, "limits": {}}).score == "accuracy"


@pytest.mark.parametrize(("score", "chance"), [("accuracy", 0.1), ("balanced_accuracy", 0.1), ("macro_f1", 2 / 110)])
def test_a_trial_that_broke_down_scores_as_chance_does(score: ScoreName, chance: float) -> None:
    broken = Trial("tiny", 1, "diverged", RECIPE, {}, False, goal=Goal(score=score))
    assert broken.score == pytest.approx(chance)
    assert broken.score_error is None


def test_results_of_another_score_are_not_taken_over(store: Store, tmp_path: Path) -> None:
    run_next(driver_of(open_record(store, "old", written(tmp_path, PLAIN), 0)))
    record = open_record(store, "new", written(tmp_path, text('score="macro_f1"')), 0)
    with pytest.raises(UserError, match=r"score is macro_f1 here but was accuracy there.*--extend"):
        extend(record, store, "old")


def test_a_goal_is_hashable_and_refuses_unknown_costs(tmp_path: Path) -> None:
    search = written(tmp_path, text(BOTH)).search
    assert hash(search) == hash(written(tmp_path, text(BOTH)).search)
    assert search.limits.by_cost == {"num_parameters": 100_000, "seconds": 3}
    for wrong in ('minimize="parameters"', 'limits={"parameters": 1}', 'limits={"num_macs": 0}'):
        with pytest.raises(UserError, match=r"minimize|limits"):
            written(tmp_path, text(wrong))


@pytest.mark.parametrize("sampler", ONE_OBJECTIVE)
def test_a_sampler_of_one_objective_refuses_a_second(tmp_path: Path, sampler: str) -> None:
    with pytest.raises(UserError, match=f"{sampler} uses accuracy only, but SEARCH minimizes seconds too"):
        written(tmp_path, text('minimize="seconds"', sampler))


@pytest.mark.parametrize("scheduler", ["forecast", "freeze-thaw"])
def test_schedulers_that_forecast_refuse_a_second_objective(tmp_path: Path, scheduler: str) -> None:
    by_forecast = text('minimize="seconds"').replace('"asha", "rungs": (0.5,), "let_through": 0', f'"{scheduler}"')
    with pytest.raises(UserError, match=f"the scheduler {scheduler} uses accuracy only"):
        written(tmp_path, by_forecast)


# The cost of a network


def test_counting_a_network_does_not_change_it() -> None:
    network = MiniResNet(width=0.25).build(10)
    network[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    generator = torch.random.get_rng_state()
    layers = count_layers(network)
    assert sum(layer.num_parameters for layer in layers) == count_parameters(network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert not any(module._forward_hooks for module in network.modules())


def test_multiply_adds_are_counted_for_each_output() -> None:
    network = nn.Sequential(conv_block(3, 8, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    assert count_macs(network) == 16 * 16 * 8 * 27 + 8 * 10


def test_a_recipe_is_counted_without_its_weights_and_without_memory(tmp_path: Path) -> None:
    space = written(tmp_path, text('limits={"num_parameters": 30_000, "num_macs": 1e6}'))
    recipe = space.baselines[0]
    assert excess(recipe, space.search.limits)["num_parameters"] == pytest.approx(NUM_BASELINE / 30_000 - 1)
    huge = excess(recipe.replace({"model/width": 1e5}), space.search.limits)
    assert 1e8 < huge["num_parameters"] < math.inf
    assert excess(recipe.replace({"model/width": 1e12}), space.search.limits)["num_parameters"] == math.inf


# Two objectives


@pytest.mark.slow
@pytest.mark.parametrize("sampler", OF_TWO)
def test_a_search_of_two_objectives_gives_optuna_both_values_at_every_end(
    memory: InMemoryStorage, tmp_path: Path, sampler: str
) -> None:
    driver = opened(memory, tmp_path, 'minimize="num_parameters"', sampler)
    whole = [run_next(driver) for _ in range(10)]
    worse = [run_next(driver, [0.1]) for _ in range(4)]
    for trial in worse:
        driver.finish(trial.number, "pruned")
    broken = run_next(driver, [0.3])
    driver.finish(broken.number, "diverged")
    too_large = driver.next_trial()
    driver.finish(too_large.number, "out of memory")
    interrupted = run_next(driver, [0.2])
    driver.interrupt()

    resumed = opened(memory, tmp_path, 'minimize="num_parameters"', sampler)
    assert run_next(resumed, [0.3, 0.4, 0.5]).number == interrupted.number
    last = run_next(resumed)
    optuna_trials = in_optuna(memory)
    for trial in whole:
        assert optuna_trials[trial.number].values == [0.5, trial.facts["num_parameters"]]
    pruned = [optuna_trials[trial.number] for trial in worse]
    assert all((trial.state, trial.values) == (TrialState.PRUNED, None) for trial in pruned)
    assert optuna_trials[broken.number].values == [0.1, broken.facts["num_parameters"]]
    worst = max(trial.facts["num_parameters"] for trial in [*whole, *worse, broken])
    assert optuna_trials[too_large.number].values == [0.1, worst], "its size is unknown"
    assert [optuna_trials[trial.number].state.name for trial in (interrupted, last)] == ["COMPLETE"] * 2
    assert not any(trial.intermediate_values for trial in optuna_trials)
    assert len({trial.params["model/width"] for trial in optuna_trials}) > 12  # the best may be tried again


def test_the_seconds_of_a_trial_that_broke_down_are_those_of_a_whole_trial(
    memory: InMemoryStorage, tmp_path: Path
) -> None:
    """A run that ends at once would otherwise be the fastest of all."""
    driver = opened(memory, tmp_path, 'minimize="seconds"')
    number = run_next(driver, [0.2], seconds=2.0).number
    driver.finish(number, "diverged")
    driver.finish(driver.next_trial().number, "diverged")
    assert [trial.values for trial in in_optuna(memory)] == [[0.1, 8.0], [0.1, 8.0]]


def test_a_trial_is_pruned_by_the_scores_of_trials_that_cost_no_more(memory: InMemoryStorage, tmp_path: Path) -> None:
    driver = opened(memory, tmp_path, 'minimize="num_parameters"', "random")
    trials = [run_next(driver, [accuracy] * 4) for accuracy in [0.5] * 4 + [0.3] * 12]
    baseline, worse = trials[0].facts["num_parameters"], trials[4:]
    best = [trial.facts["num_parameters"] for trial in trials[:4]]
    cheapest = [trial for trial in worse if trial.facts["num_parameters"] < min(best)]
    dearest = [trial for trial in worse if trial.facts["num_parameters"] > max(best)]
    assert baseline == NUM_BASELINE
    assert cheapest
    assert {trial.state for trial in cheapest} == {"completed"}
    assert "pruned" in {trial.state for trial in dearest}


# Limits


@pytest.mark.slow
@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_a_recipe_over_a_limit_is_never_trained(memory: InMemoryStorage, tmp_path: Path, sampler: str) -> None:
    goal = 'limits={"num_parameters": 30_000}'
    driver = opened(memory, tmp_path, goal, sampler)
    trials = [run_next(driver, [0.2 + i / 100] * 4) for i in range(16)]
    resumed = opened(memory, tmp_path, goal, sampler)
    trials.append(run_next(resumed))
    assert trials[0].over_limits == ["num_parameters"], "a baseline runs nevertheless"
    assert trials[0].is_complete
    assert all(trial.facts["num_parameters"] <= 30_000 for trial in trials[1:])
    refused = [trial for trial in in_optuna(memory) if REFUSED in trial.user_attrs]
    assert bool(refused) == (sampler != "forecast"), "it suggests only recipes within the limits"
    assert {(trial.state, trial.value) for trial in refused} <= {(TrialState.PRUNED, None)}
    assert all(trial.constraints["num_parameters"] > 0 for trial in refused)
    last = in_optuna(memory)[trials[-1].number]
    assert last.constraints["num_parameters"] == pytest.approx(trials[-1].facts["num_parameters"] / 30_000 - 1)
    assert (resumed.record.num_started, resumed.record.num_left(17)) == (17, 0)
    assert [trial.number for trial in resumed.record.trials()] == [trial.number for trial in trials]
    assert TrialState.RUNNING not in {trial.state for trial in in_optuna(memory)}


@pytest.mark.slow
def test_a_gaussian_process_that_learns_nothing_from_limits_is_not_asked_again_and_again(
    memory: InMemoryStorage, tmp_path: Path
) -> None:
    """The best networks lie above the limit, where Optuna's would go on searching for seconds."""
    goal = 'limits={"num_parameters": 30_000}'
    space = written(tmp_path, text(goal, "gp").replace('"asha", "rungs": (0.5,), "let_through": 0', '"none"'))
    driver = driver_of(open_record_in(memory, "tiny", space, 0), 13)
    for _ in range(13):
        trial = driver.next_trial()
        for epoch in range(1, 5):
            if not driver.add_epoch(trial.number, metrics(epoch, trial.params["model/width"]), {}):
                break
    refused = [REFUSED in trial.user_attrs for trial in in_optuna(memory)]
    assert any(refused[-6:])
    assert all(sum(refused[i : i + 3]) < 3 for i in range(len(refused)))


def test_a_space_without_a_recipe_within_its_limits_is_refused(memory: InMemoryStorage, tmp_path: Path) -> None:
    message = "no recipe within the limits .400 parameters. was found in 1,000 draws; raise the limit"
    few_widths = text('limits={"num_parameters": 400}', "random").replace("0.1, 1.0)", "0.1, 1.0, step=0.1)")
    space = written(tmp_path, few_widths)
    with pytest.raises(UserError, match=message):
        check_limits(space)
    driver = driver_of(open_record_in(memory, "tiny", space, 0))
    run_next(driver)
    with pytest.raises(UserError, match=message):
        driver.next_trial()
    assert TrialState.RUNNING not in {trial.state for trial in in_optuna(memory)}
    assert driver.record.num_started == 1


def test_a_draw_left_open_by_a_killed_process_is_closed(memory: InMemoryStorage, tmp_path: Path) -> None:
    driver = opened(memory, tmp_path, 'limits={"num_parameters": 30_000}')
    run_next(driver)
    half = driver.record.study.ask()
    half.set_user_attr(REFUSED, {"num_parameters": 0.5})
    resumed = opened(memory, tmp_path, 'limits={"num_parameters": 30_000}')
    assert resumed.record.num_left(2) == 1
    assert in_optuna(memory)[half.number].state == TrialState.PRUNED


def test_a_trial_that_took_too_long_is_complete_and_never_the_best(memory: InMemoryStorage, tmp_path: Path) -> None:
    driver = opened(memory, tmp_path, 'limits={"seconds": 3}')
    run_next(driver)
    slow = run_next(driver, [0.9] * 4, seconds=1.0)
    trials = driver.record.trials()
    slow_in_optuna = in_optuna(memory)[slow.number]
    assert (slow.state, slow.over_limits, slow_in_optuna.state) == ("completed", ["seconds"], TrialState.COMPLETE)
    assert slow_in_optuna.value == 0.9
    assert slow_in_optuna.constraints == {"seconds": pytest.approx(1 / 3)}
    assert best_trial(trials) == trials[0]
    assert "It is the baseline" in headline(trials)


@pytest.mark.parametrize("sampler", OF_TWO)
def test_two_objectives_and_limits_go_together(memory: InMemoryStorage, tmp_path: Path, sampler: str) -> None:
    driver = opened(memory, tmp_path, BOTH, sampler)
    for i in range(14):
        run_next(driver, [0.2 + i / 100] * 4, seconds=0.5 + i % 3 / 4)
    driver.finish(driver.next_trial().number, "diverged")
    run_next(driver)
    trials = driver.record.trials()
    assert {tuple(trial.over_limits) for trial in trials} == {(), ("seconds",)}
    assert {len(trial.constraints) for trial in in_optuna(memory) if trial.state == TrialState.COMPLETE} == {2}


# Results of an older search


@pytest.mark.parametrize(
    ("before", "now"),
    [("minimize=None", TOO_SLOW), (TOO_SLOW, "minimize=None"), (BOTH, 'minimize="seconds"')],
    ids=["one to two", "two to one", "two to others"],
)
def test_results_taken_over_have_the_values_of_the_new_searchs_objectives(
    store: Store, tmp_path: Path, before: str, now: str
) -> None:

    def started(goal: str, name: str) -> Driver:
        return driver_of(open_record(store, name, written(tmp_path, text(goal, "random")), 0))

    driver = started(before, "old")
    for i in range(8):
        run_next(driver, [0.5 - i / 100] * 4, seconds=1.0)
    new = started(now, "new")
    extension = extend(new.record, store, "old")
    fresh = started(now, "fresh")
    for trial in driver.record.trials():
        start_as(fresh, trial)
    copies = [trial for trial in in_optuna(store.optuna_url, "new") if PRIOR in trial.user_attrs]
    assert len(copies) == extension.num_fitting == 8
    for copy, own in zip(copies, in_optuna(store.optuna_url, "fresh"), strict=False):
        assert (copy.state, copy.values, copy.constraints) == (own.state, own.values, own.constraints)
        assert copy.intermediate_values == own.intermediate_values
    run_next(new)


def start_as(driver: Driver, trial: Trial) -> None:
    """Add a trial to a search that goes as one of another search did."""
    if trial.number:
        driver.record.study.enqueue_trial(dict(trial.params))
    number = driver.record.start_trial().number
    driver.record.add_facts(number, trial.facts)
    for epoch in trial.curve:
        driver.record.add_epoch(number, epoch)
    driver.record.finish_trial(number, trial.state)


# The report, on hand-made trials


def made(
    number: int,
    accuracy: float,
    num_parameters: int,
    goal: Mapping[str, Any],
    state: State = "completed",
    search: str = "tiny",
    seconds: float = 1.0,
) -> Trial:
    curve = [{"epoch": 1, "val_accuracy": accuracy, "seconds": seconds}]
    facts = {"num_parameters": num_parameters}
    search_goal = Goal.model_validate(goal)
    return Trial(search, number, state, RECIPE, {}, number == 0, curve, facts, goal=search_goal)


RECIPE = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet"},
    optimizer={"name": "sgd", "lr": 0.1},
    schedule={"name": "constant"},
    epochs=1,
    batch_size=32,
)
SMALL = {"minimize": "num_parameters"}


def rows(*trials: Trial) -> dict[int, dict[str, Any]]:
    return {row["trial"]: row for row in json.loads(format_report(Findings({"tiny": trials}), "json"))}


def test_the_front_has_the_trials_that_no_other_beats() -> None:
    trials = [
        made(0, 0.6, 1000, SMALL),
        made(1, 0.7, 2000, SMALL),
        made(2, 0.65, 2000, SMALL),
        made(3, 0.6, 1500, SMALL),
        made(4, 0.9, 500, SMALL, "pruned"),
        made(5, 0.7, 2000, SMALL),
        made(6, 0.5, 700, SMALL),
    ]
    assert [trial.number for trial in pareto_front(trials, "num_parameters")] == [6, 0, 1, 5]
    assert {number for number, row in rows(*trials).items() if row["pareto"]} == {0, 1, 5, 6}
    assert "Pareto front: 4 trials from 50.00 % at 700 parameters to 70.00 % at 2,000 parameters." in headline(trials)


def test_a_trial_over_a_limit_is_on_no_front_and_ranks_last() -> None:
    goal = {**SMALL, "limits": {"seconds": 2}}
    trials = [made(0, 0.6, 1000, goal), made(1, 0.9, 500, goal, seconds=3.0), made(2, 0.9, 400, goal, "pruned")]
    by_number = rows(*trials)
    assert [by_number[number]["rank"] for number in range(3)] == [1, 2, 3]
    assert [by_number[number]["over_limits"] for number in range(3)] == [None, "seconds", None]
    assert [by_number[number]["pareto"] for number in range(3)] == [True, False, False]


def test_searches_of_one_task_share_a_front() -> None:
    small = [made(0, 0.6, 1000, SMALL)]
    other = [made(0, 0.7, 900, {}, search="other")]
    report = json.loads(format_report(Findings({"tiny": small, "other": other}), "json"))
    assert {row["search"]: row["pareto"] for row in report} == {"tiny": False, "other": None}
    assert "Pareto front: 1 trial with 60.00 % at 1,000 parameters." in headline(small)


def test_gains_are_counted_from_a_baseline_over_a_limit_and_the_report_says_so() -> None:
    goal = {"limits": {"num_parameters": 800}}
    trials = [made(0, 0.6, 1000, goal), made(1, 0.55, 700, goal)]
    assert headline(trials) == (
        "Best of 2 trials: trial 1 with 55.00 %, 5.00 points below the baseline's 60.00 % "
        "(one run each; the baseline is over a limit). "
        "Unconfirmed; the sampling error of 1,000 validation images alone is up to ±4.33 points (95 %)."
    )
    assert headline(trials[:1]) == "No trial has completed within its limits: 1 completed over a limit."


def test_a_search_for_accuracy_only_has_no_front_and_no_limits() -> None:
    assert not {"pareto", "over_limits"} & rows(made(0, 0.6, 1000, {}))[0].keys()


def test_the_weights_of_the_whole_front_are_kept(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    goal = {**SMALL, "limits": {"seconds": 2}}
    keeper = BestWeights(store, [])
    for trial in (
        made(0, 0.6, 1000, goal),
        made(1, 0.5, 500, goal),
        made(2, 0.9, 900, goal, seconds=3.0),
        made(3, 0.7, 900, goal),
        made(4, 0.4, 600, goal),
    ):
        folder = store.trial("tiny", trial.number)
        folder.mkdir(parents=True)
        (folder / STATE).touch()
        (folder / WEIGHTS).touch()
        keeper.update(trial)
    kept = sorted(path.relative_to(store.trial("tiny", 0).parent).as_posix() for path in store.root.rglob("*.*"))
    assert kept == [f"00001/{WEIGHTS}", f"00003/{WEIGHTS}"]


# A whole search


@pytest.mark.slow
def test_a_search_of_two_objectives_within_limits(tmp_path: Path, call: Call) -> None:
    path = tmp_path / "tiny.py"
    goal = 'minimize="num_macs", limits={"num_parameters": 30_000, "num_macs": 4e6}'
    path.write_text(text(goal).replace("epochs=4", "epochs=2"))
    arguments = ("--store", tmp_path / "store")
    done = call("run", path, *arguments, "--num-trials", 3, "--cpus-per-trial", 1)
    assert done.code == 0, done.stderr
    assert "Pareto front: " in done.stdout
    report = json.loads(call("report", "tiny", *arguments, "--format", "json").stdout)
    by_number = {row["trial"]: row for row in report}
    assert len(by_number) == 3
    assert by_number[0]["over_limits"] == "num_parameters, num_macs"
    network = MiniResNet(width=by_number[0]["recipe"]["model"]["width"]).build(10)
    assert (by_number[0]["num_parameters"], by_number[0]["num_macs"]) == (
        count_parameters(network),
        count_macs(network),
    )
    within = [row for number, row in by_number.items() if number]
    assert all(row["num_parameters"] <= 30_000 and row["num_macs"] <= 4e6 for row in within)
    again = call("run", path, *arguments, "--num-trials", 3)
    assert "tiny is complete" in again.stderr
