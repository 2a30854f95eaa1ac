"""The record of a search: a real Optuna study in SQLite, driven by hand-made epochs instead of Ray."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from helpers.command_line import by_optuna
from helpers.records import RISING, accuracies, driver_of, metrics, train, train_by_rate, written
from optuna.trial import TrialState

from cifar_tune.errors import UserError
from cifar_tune.search.draws import NoTrialLeftError
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record
from cifar_tune.search.record import Record
from cifar_tune.store import Store, open_store
from cifar_tune.trials.reading import delete_record, read_record
from cifar_tune.trials.study_storage import StudyStorage
from cifar_tune.trials.trial import OPTUNA_STATES, State, Trial, curve_of

SPACE = """
from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "sgd", "lr": 0.1},
    schedule={"name": "constant"}, epochs=4, batch_size=32, train_images=64,
)

def space(trial):
    lr = trial.suggest_float("optimizer/lr", 1e-3, 1.0, log=True)
    return BASELINE.replace({"optimizer/lr": lr, "batch_size": trial.suggest_categorical("batch_size", [16, 32])})

SEARCH = Search(num_trials=4, scheduler={"name": "asha", "rungs": (0.5,), "let_through": 0})
"""
TWO_BASELINES = 'BASELINES = [BASELINE, BASELINE.replace({"optimizer/lr": 0.3, "batch_size": 16})]\n'
PATIENT = SPACE.replace("epochs=4", 'epochs=8, early_stopping={"name": "patience", "patience": 2}')

Open = Callable[..., Record]


@pytest.fixture
def reopen(store: Store, tmp_path: Path) -> Open:
    """Open the search as a new process would: nothing is shared with the record opened before."""

    def opened(text: str = SPACE, settings: dict[str, str] | None = None, seed: int = 0) -> Record:
        return open_record(store, "tiny", written(tmp_path, text, settings), seed)

    return opened


def in_optuna(store: Store, number: int) -> optuna.trial.FrozenTrial:
    return optuna.load_study(study_name="tiny", storage=store.optuna_url).trials[number]


def seen(store: Store) -> list[Trial]:
    return read_record(store, ["tiny"])["tiny"]


# Its database


def test_the_record_has_a_write_ahead_log_and_does_not_wait_for_the_disk(reopen: Open) -> None:
    storage = reopen().study._storage
    assert isinstance(storage, StudyStorage)
    with storage._database.engine.connect() as connection:
        settings = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 1]  # 1 is NORMAL


def test_another_process_reads_the_last_changes_of_an_open_record(store: Store, reopen: Open) -> None:
    driver = driver_of(reopen())
    number = driver.next_trial().number
    driver.add_epoch(number, metrics(1, 0.25), {})
    driver.write()
    (row,) = by_optuna(store, "trials", "--study-name", "tiny")
    assert (row["number"], row["state"], row["user_attrs"]["state"]) == (number, "RUNNING", "running")
    assert [epoch["val_accuracy"] for epoch in curve_of(row["user_attrs"])] == [0.25]
    assert driver.add_epoch(number, metrics(2, 0.5), {})


# The first trials


def test_trial_0_is_the_baseline(reopen: Open) -> None:
    record = reopen()
    trial = record.start_trial()
    assert (trial.number, trial.is_baseline) == (0, True)
    assert trial.recipe == record.space.baselines[0]
    assert not record.start_trial().is_baseline


def test_several_baselines_are_the_first_trials_in_their_order(reopen: Open) -> None:
    record = reopen(SPACE + TWO_BASELINES)
    trials = [record.start_trial() for _ in range(3)]
    assert [trial.is_baseline for trial in trials] == [True, True, False]
    assert tuple(trial.recipe for trial in trials[:2]) == record.space.baselines


def test_a_baseline_is_started_once_even_if_the_search_is_opened_again(reopen: Open) -> None:
    for _ in range(3):
        record = reopen(SPACE + TWO_BASELINES)
    recipes = [record.start_trial().recipe for _ in range(6)]
    assert [recipes.count(baseline) for baseline in record.space.baselines] == [1, 1]


def test_a_setting_is_fixed_in_every_trial_and_sampled_in_none(reopen: Open) -> None:
    record = reopen(settings={"batch_size": "16"})
    trials = [record.start_trial() for _ in range(4)]
    assert {trial.recipe.batch_size for trial in trials} == {16}
    assert {name for trial in trials for name in trial.params} == {"optimizer/lr"}


# How a trial ends


def test_a_completed_trial_scores_its_last_epoch(store: Store, reopen: Open) -> None:
    number = train(driver_of(reopen()), [0.2, 0.7, 0.4, 0.5])
    (trial,) = seen(store)
    assert (trial.state, trial.epochs, trial.score, trial.seconds) == ("completed", 4, 0.5, 2.0)
    assert trial.facts == {"num_parameters": 7, "rungs": {"2": 0.5}}
    assert in_optuna(store, number).state == TrialState.COMPLETE
    assert in_optuna(store, number).value == 0.5


def test_a_pruned_trial_is_pruned_in_optuna_with_its_intermediate_values(store: Store, reopen: Open) -> None:
    driver = driver_of(reopen())
    train(driver, RISING)
    number = train(driver, [0.1, 0.15, 0.9, 0.9])
    assert in_optuna(store, number).state == TrialState.PRUNED
    assert in_optuna(store, number).intermediate_values == {1: 0.1, 2: 0.15}
    assert seen(store)[number].state == "pruned"
    assert accuracies(seen(store)[number]) == [0.1, 0.15]


@pytest.mark.parametrize("state", ["diverged", "out of memory"])
def test_a_trial_that_broke_down_completes_in_optuna_with_chance_accuracy(
    store: Store, reopen: Open, state: State
) -> None:
    driver = driver_of(reopen())
    number = driver.next_trial().number
    driver.add_epoch(number, metrics(1, 0.6), {})
    driver.finish(number, state, facts={"diverged_at_step": 3})
    trial = seen(store)[number]
    assert (trial.state, trial.score, trial.epochs) == (state, 0.1, 1)
    assert trial.facts["diverged_at_step"] == 3
    assert in_optuna(store, number).state == TrialState.COMPLETE
    assert in_optuna(store, number).value == 0.1


def test_a_trial_out_of_patience_stops_early_with_its_best_score(store: Store, reopen: Open) -> None:
    number = train(driver_of(reopen(PATIENT)), [0.2, 0.7, 0.4, 0.5, 0.9])
    (trial,) = seen(store)
    assert (trial.state, trial.epochs, trial.score) == ("stopped early", 4, 0.7)
    assert trial.is_complete
    assert trial.is_over
    assert in_optuna(store, number).state == TrialState.COMPLETE
    assert in_optuna(store, number).value == 0.7
    assert in_optuna(store, number).intermediate_values == {1: 0.2, 2: 0.7, 3: 0.7, 4: 0.7}


def test_a_trial_with_patience_left_at_its_end_completes_with_its_best_score(store: Store, reopen: Open) -> None:
    number = train(driver_of(reopen(PATIENT)), [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.65, 0.6])
    (trial,) = seen(store)
    assert (trial.state, trial.epochs, trial.score) == ("completed", 8, 0.7)
    assert in_optuna(store, number).value == 0.7


def test_with_early_stopping_a_rung_judges_the_best_epoch_so_far(store: Store, reopen: Open) -> None:
    """At epoch 4 of 8 the accuracy is the same in all three trials, but the best epoch before it is not."""
    driver = driver_of(reopen(PATIENT))
    for best in (0.5, 0.6, 0.45):
        train(driver, [0.2, 0.3, best, 0.4])
    assert [trial.state for trial in seen(store)] == ["interrupted", "interrupted", "pruned"]


def test_rungs_are_rebuilt_from_the_best_epochs_too(store: Store, reopen: Open) -> None:
    driver = driver_of(reopen(PATIENT))
    train(driver, [0.2, 0.3, 0.6, 0.4])
    driver.write()
    resumed = driver_of(reopen(PATIENT))
    assert resumed.next_trial().number == 0
    train(resumed, [0.2, 0.3, 0.5, 0.4])
    assert seen(store)[1].state == "pruned"


def test_no_rung_lies_before_two_epochs_of_the_second_phase(store: Store, reopen: Open) -> None:
    """The rung at a quarter of the second phase's 3 epochs lies after two of them."""
    two_phase = SPACE.replace("epochs=4", 'epochs=4, finetune={"name": "two-phase", "head_epochs": 1}')
    two_phase = two_phase.replace("(0.5,)", "(0.25,)")
    driver = driver_of(reopen(two_phase))
    train(driver, RISING)
    number = train(driver, [0.1, 0.1, 0.1, 0.1])
    assert seen(store)[number].epochs == 3
    assert [trial.state for trial in seen(store)] == ["completed", "pruned"]


def test_a_failed_trial_fails_in_optuna_and_keeps_its_error(store: Store, reopen: Open) -> None:
    driver = driver_of(reopen())
    train(driver, RISING)
    number = driver.next_trial().number
    driver.add_epoch(number, metrics(1, 0.6), {})
    driver.finish(number, "failed", error="Traceback\nKeyError: 'x'")
    trial = seen(store)[number]
    assert (trial.state, trial.score, trial.error) == ("failed", None, "Traceback\nKeyError: 'x'")
    assert in_optuna(store, number).state == TrialState.FAIL


def test_an_interrupted_trial_stays_running_in_optuna(store: Store, reopen: Open) -> None:
    driver = driver_of(reopen())
    number = driver.next_trial().number
    driver.interrupt()
    assert seen(store)[number].state == "interrupted"
    assert in_optuna(store, number).state == TrialState.RUNNING
    assert in_optuna(store, number).user_attrs["state"] == "interrupted"


@pytest.mark.parametrize("state", OPTUNA_STATES)
def test_after_any_end_no_trial_is_live(reopen: Open, state: State) -> None:
    driver = driver_of(reopen(), num_trials=2)
    train(driver, RISING)
    number = driver.next_trial().number
    driver.add_epoch(number, metrics(1, 0.6), {})
    assert not driver.is_over
    driver.finish(number, state)
    assert driver.is_over
    assert driver.record.num_live == 0


# Resuming


def test_interrupted_trials_come_first_with_their_recipe_and_their_curve(reopen: Open) -> None:
    driver = driver_of(reopen())
    train(driver, RISING)
    before = [driver.next_trial() for _ in range(2)]
    driver.add_epoch(before[0].number, metrics(1, 0.25), {"device": "cpu"})
    driver.interrupt()

    resumed = driver_of(reopen())
    after = [resumed.next_trial() for _ in range(3)]
    assert [trial.number for trial in after] == [1, 2, 3]
    assert [trial.recipe for trial in after[:2]] == [trial.recipe for trial in before]
    assert [trial.params for trial in after[:2]] == [trial.params for trial in before]
    assert [accuracies(trial) for trial in after] == [[0.25], [], []]
    assert after[0].facts == {"device": "cpu"}
    assert {trial.state for trial in after} == {"running"}


def test_a_trial_of_a_killed_process_comes_first_too(store: Store, reopen: Open) -> None:
    driver = driver_of(reopen())
    baseline = driver.next_trial()
    driver.add_epoch(baseline.number, metrics(1, 0.25), {})
    driver.write()

    resumed = driver_of(reopen())
    assert train(resumed, RISING[1:]) == baseline.number
    assert [(trial.state, accuracies(trial)) for trial in seen(store)] == [("completed", [0.25, *RISING[1:]])]


@pytest.mark.parametrize("written_before_it_was_killed", ["running", "completed"])
def test_a_trial_of_a_killed_process_is_interrupted_as_soon_as_the_search_is_opened(
    store: Store, reopen: Open, written_before_it_was_killed: State
) -> None:
    driver = driver_of(reopen())
    number = driver.next_trial().number
    driver.add_epoch(number, metrics(1, 0.25), {})
    driver.record._change(number, state=written_before_it_was_killed)
    driver.write()
    with store.running("tiny"):
        reopen()
        assert [(trial.state, accuracies(trial)) for trial in seen(store)] == [("interrupted", [0.25])]
    assert in_optuna(store, number).state == TrialState.RUNNING


def test_a_trial_killed_while_it_was_sampled_keeps_its_values(reopen: Open) -> None:
    record = reopen()
    record.start_trial()
    half = record.study.ask()
    lr = half.suggest_float("optimizer/lr", 1e-3, 1.0, log=True)

    resumed = reopen()
    trials = [resumed.start_trial() for _ in range(2)]
    assert [trial.number for trial in trials] == [0, 1]
    assert trials[1].recipe.optimizer.lr == lr


def test_after_an_interruption_baselines_are_still_baselines(reopen: Open) -> None:
    driver_of(reopen(SPACE + TWO_BASELINES)).next_trial()
    record = reopen(SPACE + TWO_BASELINES)
    assert [record.start_trial().is_baseline for _ in range(3)] == [True, True, False]


def test_a_repeated_epoch_replaces_the_recorded_one(store: Store, reopen: Open) -> None:
    driver = driver_of(reopen())
    number = driver.next_trial().number
    for epoch, accuracy in enumerate([0.2, 0.3], start=1):
        driver.add_epoch(number, metrics(epoch, accuracy), {})
    driver.write()

    resumed = driver_of(reopen())
    resumed.next_trial()
    for epoch, accuracy in enumerate([0.35, 0.45, 0.55], start=2):
        resumed.add_epoch(number, metrics(epoch, accuracy), {})
    assert accuracies(seen(store)[number]) == [0.2, 0.35, 0.45, 0.55]
    assert in_optuna(store, number).intermediate_values == {1: 0.2, 2: 0.35, 3: 0.45, 4: 0.55}


def test_the_trials_left_are_the_interrupted_and_the_new_ones(reopen: Open) -> None:
    record = reopen()
    assert (record.num_left(4), record.num_started) == (4, 0)
    driver = driver_of(record, num_trials=4)
    train(driver, RISING)
    driver.next_trial()
    assert (driver.num_left, record.num_live, driver.is_over) == (2, 1, False)
    driver.interrupt()

    resumed = reopen()
    assert (resumed.num_left(4), resumed.num_started) == (3, 2)
    assert resumed.num_left(1) == 1, "an interrupted trial is resumed even where fewer are asked for now"
    assert resumed.num_left(10) == 9
    train(driver_of(resumed, num_trials=4), RISING)
    assert reopen().num_left(2) == 0


@pytest.mark.slow
@pytest.mark.parametrize("best", [0.01, 0.5])
def test_a_search_continued_to_more_trials_keeps_what_its_forecast_learnt(reopen: Open, best: float) -> None:
    first = driver_of(reopen(), num_trials=16)
    for _ in range(16):
        train_by_rate(first, best)
    assert first.is_over
    more = driver_of(reopen(), num_trials=24)
    forecast = more.record.forecast
    assert forecast is not None
    model = forecast.fit()
    assert model is not None
    rates = np.geomspace(1e-3, 1, 100)
    points = forecast.encoding.encode([{"optimizer/lr": rate, "batch_size": 16} for rate in rates])
    assert best / 2 < rates[model.predict(points).mean.argmax()] < 2 * best
    assert more.num_left == 8
    assert best / 3 < train_by_rate(more, best) < 3 * best


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"text": SPACE.replace("1e-3", "1e-4")}, "trial.suggest_float"),
        ({"settings": {"batch_size": "32"}}, "--set batch_size=16"),
        ({"settings": {}}, "--set batch_size=16"),
        ({"seed": 1}, "--seed 0"),
    ],
    ids=["another file", "another setting", "no setting", "another seed"],
)
def test_another_search_under_the_same_name_is_refused_with_the_difference(
    store: Store, reopen: Open, change: dict[str, object], difference: str
) -> None:
    same = {"text": SPACE, "settings": {"batch_size": "16"}, "seed": 0}
    train(driver_of(reopen(**same)), RISING)
    with pytest.raises(UserError, match="--name") as refused:
        reopen(**{**same, **change})
    assert difference in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [trial.state for trial in seen(store)] == ["completed"]
    assert reopen(**same).num_left(2) == 1


def test_a_setting_added_later_is_refused(reopen: Open) -> None:
    reopen()
    with pytest.raises(UserError, match="started with no --set"):
        reopen(settings={"batch_size": "16"})


# Reading


def test_a_running_trial_of_a_dead_process_is_shown_as_interrupted(store: Store, reopen: Open) -> None:
    with store.running("tiny"):
        driver_of(reopen()).next_trial()
        assert [trial.state for trial in seen(store)] == ["running"]
    assert [trial.state for trial in seen(store)] == ["interrupted"]


def test_all_searches_are_read_if_none_is_named(store: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(driver_of(open_record(store, name, written(tmp_path, SPACE), 0)), RISING)
    assert {name: len(trials) for name, trials in read_record(store).items()} == {"one": 1, "two": 1}
    assert list(read_record(store, ["two"])) == ["two"]


def test_an_unknown_search_is_refused_with_the_nearest(store: Store, reopen: Open) -> None:
    reopen()
    with pytest.raises(UserError, match=r"'tinny'.*nearest is tiny"):
        read_record(store, ["tinny"])


def test_a_store_whose_last_search_was_deleted_has_no_search(store: Store, reopen: Open) -> None:
    reopen()
    delete_record(store, "tiny")
    with pytest.raises(UserError, match="There is no search"):
        read_record(store)


def test_versions_are_those_of_the_start_of_the_search(reopen: Open) -> None:
    assert reopen().remember_versions({"torch": "1"}) == {"torch": "1"}
    assert reopen().remember_versions({"torch": "2"}) == {"torch": "1"}


# Which trials go on


def test_a_baseline_is_never_pruned(store: Store, reopen: Open) -> None:
    record = reopen(SPACE + TWO_BASELINES)
    driver = driver_of(record)
    train(driver, RISING)
    train(driver, [0.01, 0.01, 0.01, 0.01])
    assert [trial.state for trial in seen(store)] == ["completed", "completed"]


@pytest.mark.slow
def test_a_new_driver_judges_as_one_that_never_stopped(tmp_path: Path) -> None:
    curves = [[0.3] * 4, [0.1] * 4, [0.5] * 4, [0.4] * 4, [0.2] * 4, [0.6] * 4, [0.45] * 4]
    space = written(tmp_path, SPACE)
    stores = [open_store(tmp_path / name) for name in ("whole", "pieces")]
    whole = driver_of(open_record(stores[0], "tiny", space, 0))
    for curve in curves:
        train(whole, curve)
        train(driver_of(open_record(stores[1], "tiny", space, 0)), curve)
    states = [[trial.state for trial in seen(store)] for store in stores]
    assert states[0] == states[1]
    assert {"completed", "pruned"} == set(states[0][1:])


def test_an_interrupted_trial_is_judged_against_those_before_the_interruption(store: Store, reopen: Open) -> None:
    driver = driver_of(reopen())
    train(driver, [0.5, 0.6, 0.7, 0.8])
    number = driver.next_trial().number
    driver.add_epoch(number, metrics(1, 0.1), {})
    driver.interrupt()
    assert train(driver_of(reopen()), [0.2, 0.3, 0.4]) == number
    assert seen(store)[number].state == "pruned"


LENIENT = SPACE.replace('"let_through": 0', '"let_through": 0.99')


def test_a_trial_that_is_let_through_is_trained_on_and_has_its_epoch_as_a_fact(store: Store, reopen: Open) -> None:
    driver = driver_of(reopen(LENIENT))
    train(driver, RISING)
    number = driver.next_trial().number
    for epoch in (1, 2, 3):
        assert driver.add_epoch(number, metrics(epoch, 0.1), {})
    driver.write()
    assert seen(store)[number].facts["let_through_at_epoch"] == 2

    resumed = driver_of(reopen(LENIENT))
    assert resumed.next_trial().number == number
    for epoch in (2, 3):
        assert resumed.add_epoch(number, metrics(epoch, 0.1), {})
    assert not resumed.add_epoch(number, metrics(4, 0.1), {})
    trial = seen(store)[number]
    assert (trial.state, trial.epochs, trial.facts["let_through_at_epoch"]) == ("completed", 4, 2)


def test_a_stopped_trial_has_its_rung_as_a_fact(store: Store, reopen: Open) -> None:
    driver = driver_of(reopen())
    train(driver, RISING)
    number = train(driver, [0.1, 0.1])
    assert seen(store)[number].facts["stopped_at_rung"] == 0.5


def test_a_rung_that_was_passed_before_an_interruption_stays_passed(store: Store, reopen: Open) -> None:
    """Even if better trials have reached it since, and the resumed trial reports its last epoch again."""
    driver = driver_of(reopen())
    train(driver, RISING)
    number = driver.next_trial().number
    for epoch in (1, 2):
        assert driver.add_epoch(number, metrics(epoch, 0.5), {})
    for _ in range(3):
        train(driver, [0.9] * 4)

    resumed = driver_of(reopen())
    assert resumed.next_trial().number == number
    assert resumed.add_epoch(number, metrics(2, 0.5), {})


class RecordReader:
    """An observer that reads the record at every update."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.updates: list[Trial] = []
        self.written: list[Trial] = []

    def update(self, trial: Trial) -> None:
        self.updates.append(trial)
        self.written.append(seen(self._store)[trial.number])

    def tick(self) -> None:
        pass


def test_every_change_is_recorded_before_observers_are_updated(store: Store, reopen: Open) -> None:
    observer = RecordReader(store)
    with store.running("tiny"):
        driver = Driver(reopen(), 3, [observer])
        train(driver, RISING)
        train(driver, [0.1, 0.1])
        driver.next_trial()
        driver.interrupt()
    expected = ["running", "completed", "running", "pruned", "running", "interrupted"]
    assert [trial.state for trial in observer.updates] == expected
    assert observer.updates == observer.written


@pytest.mark.parametrize(("together", "told"), [(0.0, [0, 1, 2]), (math.inf, [0])])
def test_epochs_that_follow_one_another_fast_are_written_and_told_together(
    store: Store, reopen: Open, monkeypatch: pytest.MonkeyPatch, together: float, told: list[int]
) -> None:
    monkeypatch.setattr("cifar_tune.search.driver.SECONDS_TOGETHER", together)
    observer = RecordReader(store)
    with store.running("tiny"):
        driver = Driver(reopen(), 3, [observer])
        number = driver.next_trial().number
        for epoch in (1, 2):
            driver.add_epoch(number, metrics(epoch, 0.5), {})
            driver.tick()
        assert [trial.epochs for trial in observer.updates] == told
        assert seen(store)[number].epochs == told[-1]
        driver.interrupt()
        assert observer.updates[-1].epochs == observer.written[-1].epochs == 2


# Resuming, exactly


def test_an_epoch_repeated_by_a_resumed_trial_keeps_the_curve_and_is_not_judged_again(reopen: Open) -> None:
    first = driver_of(reopen())
    train(first, RISING)
    driver = driver_of(first.record)
    number = train(driver, (0.5, 0.6, 0.7))  # passes its rung
    train(driver, (0.9, 0.9, 0.9))  # two better trials reach that rung
    train(driver, (0.9, 0.9, 0.9))
    assert driver.add_epoch(number, metrics(2, 0.6), {})
    trial = driver.record.add_epoch(number, metrics(4, 0.8))
    assert accuracies(trial) == [0.5, 0.6, 0.7, 0.8]


def test_the_last_recorded_epoch_is_judged_when_it_is_repeated(reopen: Open) -> None:
    record = reopen()
    driver = driver_of(record)
    train(driver, RISING)
    train(driver, (0.9, 0.9, 0.9, 0.9))
    number = driver.next_trial().number
    record.add_epoch(number, metrics(1, 0.1))
    record.add_epoch(number, metrics(2, 0.1))  # recorded, but the process died before the judgement
    again = driver_of(reopen())
    assert again.next_trial().number == number
    assert not again.add_epoch(number, metrics(2, 0.1), {})


def test_a_draw_that_the_space_refuses_fails_and_does_not_block_the_search(store: Store, tmp_path: Path) -> None:
    flag = tmp_path / "raise"
    text = SPACE.replace(
        "    lr =", f"    import pathlib\n    assert not pathlib.Path({str(flag)!r}).exists()\n    lr ="
    )
    record = open_record(store, "tiny", written(tmp_path, text), 0)
    driver = driver_of(record)
    train(driver, RISING)
    flag.touch()
    with pytest.raises(UserError, match=r"AssertionError.* The same command goes on with another draw\."):
        driver.next_trial()
    flag.unlink()
    again = driver_of(open_record(store, "tiny", written(tmp_path, text), 0))
    assert again.record.num_live == 0
    assert train(again, RISING) == 2
    assert in_optuna(store, 1).state == TrialState.FAIL
    assert again.record.num_started == 2


def test_baselines_that_a_setting_makes_equal_are_one(reopen: Open) -> None:
    text = SPACE.replace("SEARCH =", TWO_BASELINES + "SEARCH =")
    record = reopen(text, {"optimizer/lr": "0.2", "batch_size": "32"})
    assert len(record.space.baselines) == 1
    assert record.start_trial().is_baseline
    with pytest.raises(NoTrialLeftError):
        record.start_trial()


@pytest.mark.parametrize(
    "edited",
    [
        '"""A docstring."""\n' + SPACE + "# a comment\n",
        SPACE.replace("def space(trial):", 'def space( trial ):\n    """Choices."""'),
        SPACE.replace("from cifar_tune import", "from cifar_tune.recipe import Recipe\nfrom cifar_tune import"),
        SPACE.replace("\n", "\r\n"),
        "\ufeff" + SPACE,
        SPACE.replace("num_trials=4", "num_trials=400"),
        SPACE.replace("num_trials=4", "num_trials=2"),
        SPACE.replace("num_trials=4, ", ""),
        SPACE.replace("num_trials=4", "num_trials=NUM_TRIALS").replace("SEARCH", "NUM_TRIALS = 10 * 4\nSEARCH"),
        "import math\nfrom optuna import Trial\n" + SPACE.replace("(trial)", "(trial: Trial) -> Recipe"),
        SPACE.replace("BASELINE =", "BASELINE: Recipe ="),
        SPACE.replace("0.1}", "1e-1}").replace('"', "'"),
        "import typing as t\nif t.TYPE_CHECKING:\n    import optuna\n" + SPACE,
    ],
    ids=[
        "comments",
        "layout",
        "imports",
        "line ends",
        "byte-order mark",
        "more trials",
        "fewer trials",
        "the usual number of trials",
        "a named number of trials",
        "unused imports and annotations",
        "an annotated baseline",
        "numbers and quotes",
        "imports for a type checker",
    ],
)
def test_an_edit_that_changes_no_result_continues_the_search(reopen: Open, edited: str) -> None:
    first = reopen()
    assert reopen(edited).id == first.id
    assert reopen().id == first.id


def test_a_setting_may_be_written_in_another_way(reopen: Open) -> None:
    first = reopen(settings={"optimizer/lr": "0.01", "batch_size": "16"})
    assert reopen(settings={"batch_size": "16", "optimizer/lr": "1e-2"}).id == first.id


USING_RATE = SPACE.replace("from cifar_tune", "RATE = 0.1\nfrom cifar_tune").replace('"lr": 0.1', '"lr": RATE')


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (USING_RATE, USING_RATE.replace("RATE = 0.1", "RATE = 0.2")),
        (SPACE + "N = 1\n", SPACE + "N = 1\nBASELINE = BASELINE.replace(dict(epochs=5))\n"),
        (SPACE, SPACE.replace('"let_through": 0', '"let_through": 0, "keep": 0.4')),
        (SPACE, SPACE.replace("Search(", 'Search(score="macro_f1", ')),
        ("from math import pi as x\n" + SPACE + "y = x\n", "from math import e as x\n" + SPACE + "y = x\n"),
        ("N = 1\n" + SPACE + "eval('N')\n", "N = 2\n" + SPACE + "eval('N')\n"),
    ],
    ids=[
        "a constant that is read",
        "a later baseline",
        "the scheduler",
        "the score",
        "an import that is read",
        "a name that eval reads",
    ],
)
def test_an_edit_that_may_change_a_result_is_refused(reopen: Open, before: str, after: str) -> None:
    reopen(before)
    with pytest.raises(UserError, match=r"another space file, which differs in \d+ lines: [-+]"):
        reopen(after)


def test_a_changed_helper_is_noticed_as_a_changed_file_is(store: Store, tmp_path: Path) -> None:
    text = SPACE.replace("from cifar_tune", "from rates import HIGH\nfrom cifar_tune").replace("1.0", "HIGH")
    helper = tmp_path / "rates.py"

    def opened_with(rates: str) -> Record:
        helper.write_text(rates, encoding="utf-8")
        return open_record(store, "tiny", written(tmp_path, text), 0)

    first = opened_with("HIGH = 1.0\n")
    assert opened_with('"""Rates."""\n\nHIGH = 1  # at most\n'.replace("1  #", "1.0  #")).id == first.id
    with pytest.raises(UserError, match=r"another rates\.py, which differs in 2 lines: -HIGH = 1\.0 \| \+HIGH = 2\.0"):
        opened_with("HIGH = 2.0\n")
    with pytest.raises(UserError, match=r"another rates\.py"):
        opened_with("LOW = HIGH = 1.0\n")


def test_other_images_under_the_same_name_are_refused(reopen: Open) -> None:
    reopen().check_unchanged("data", "a")
    reopen().check_unchanged("data", "a")
    with pytest.raises(UserError, match=r"was started with other data.*--name"):
        reopen().check_unchanged("data", "b")
