"""Which files of a finished trial are kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.made_trials import trial

from cifar_tune.commands.trial_files import BestWeights, EveryResult
from cifar_tune.store import STATE, WEIGHTS, Store, open_store
from cifar_tune.trials.trial import State, Trial


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def trained(store: Store, number: int, accuracy: float, state: State = "completed") -> Trial:
    """A trial with both of its files."""
    folder = store.trial("tiny", number)
    folder.mkdir(parents=True)
    (folder / STATE).touch()
    (folder / WEIGHTS).touch()
    return trial(number, accuracy, state)


def files(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.search("tiny") / "trials")) for path in store.root.rglob("*.*"))


def test_the_weights_of_the_best_trial_alone_are_kept(store: Store) -> None:
    keeper = BestWeights(store, [])
    keeper.update(trained(store, 0, 0.5))
    assert files(store) == [f"00000/{WEIGHTS}"]
    keeper.update(trained(store, 1, 0.7))
    keeper.update(trained(store, 2, 0.6))
    keeper.update(trained(store, 3, 0.9, "pruned"))
    keeper.update(trained(store, 4, 0.7))
    assert files(store) == [f"00001/{WEIGHTS}"]


def test_a_trial_that_still_runs_keeps_its_state(store: Store) -> None:
    keeper = BestWeights(store, [])
    running = trained(store, 0, 0.5, "running")
    keeper.update(running)
    keeper.update(replace(running, state="interrupted"))
    assert f"00000/{STATE}" in files(store)


def test_a_paused_trial_keeps_its_state_until_it_is_pruned(store: Store) -> None:
    paused = trained(store, 1, 0.5, "paused")
    keeper = BestWeights(store, [paused])
    assert f"00001/{STATE}" in files(store)
    keeper.update(replace(paused, state="pruned"))
    assert files(store) == []


def test_what_a_killed_process_left_behind_is_cleared(store: Store) -> None:
    trials = [trained(store, 0, 0.5), trained(store, 1, 0.7), trained(store, 2, 0.1, "pruned")]
    BestWeights(store, trials)
    assert files(store) == [f"00001/{WEIGHTS}"]


def test_of_reruns_every_result_is_kept_and_no_checkpoint(store: Store) -> None:
    keeper = EveryResult(store, [trained(store, 0, 0.5)])
    keeper.update(trained(store, 1, 0.7, "running"))
    assert files(store) == [f"00000/{WEIGHTS}", f"00001/{STATE}", f"00001/{WEIGHTS}"]
