"""The studies in analysis/: each by its command, and its conclusion on results whose truth is set by the test."""

import re
import subprocess
import sys
from pathlib import Path

import choices
import numpy as np
import pandas as pd
import payoff
import pytest
import rungs
from make_store import make_store

from cifar_tune.report.frames import epochs_frame
from cifar_tune.store import Store

ANALYSIS = Path(__file__).parents[2] / "analysis"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("studies"))
    make_store(store.root, 240, 8, "made")
    return store


@pytest.mark.slow
@pytest.mark.parametrize("study", ["choices", "rungs", "payoff"])
def test_a_study_ends_in_a_figure_and_a_paragraph(study: str, store: Store, tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    command = [sys.executable, str(ANALYSIS / f"{study}.py"), "--store", str(store.root), "--output", str(figure)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    paragraph = done.stdout.strip().splitlines()[-2]
    assert "made" in paragraph
    assert "nan" not in paragraph
    assert figure.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_a_study_without_results_says_so_and_draws_nothing(tmp_path: Path) -> None:
    make_store(tmp_path / "store", 3, 4, "made")
    command = [sys.executable, str(ANALYSIS / "rungs.py"), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.startswith("No schedule has 10 completed trials")
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.parametrize("study", [choices, rungs, payoff])
def test_a_study_says_why_it_has_no_result(study: object) -> None:
    assert re.search(r"no (result|gain to state)\. \w.*\.$", study.conclude(pd.DataFrame()))  # type: ignore[attr-defined]


def test_a_choice_that_matters_differs_from_one_that_does_not() -> None:
    rng = np.random.default_rng(0)
    kinds, noise = np.repeat(["a", "b"], 30), np.tile(["x", "y"], 30)
    scores = pd.Series(np.where(kinds == "a", 0.8, 0.7) + rng.normal(0, 0.02, 60))
    real = choices.spread(pd.Series(kinds), scores)
    none = choices.spread(pd.Series(noise), scores)
    assert real is not None
    assert none is not None
    assert real["spread"] == pytest.approx(10, abs=2)
    assert real["best"] == "a"
    assert float(str(real["p"])) < 1e-6
    assert float(str(none["p"])) > 0.05
    assert choices.spread(pd.Series(["a"] * 58 + ["b"] * 2), scores) is None, "two trials are no group"


def test_numbers_are_split_in_halves_and_choices_are_not() -> None:
    numbers = pd.Series([float(number) for number in range(10)] + [None])
    assert choices.as_groups(numbers).value_counts().to_dict() == {"up to 4.5": 5, "above 4.5": 5}
    assert choices.as_groups(pd.Series(list("abcdefgh"))).tolist() == list("abcdefgh")
    assert choices.as_groups(pd.Series([True, False, None], dtype=object)).dropna().tolist() == ["True", "False"]


def test_early_scores_that_are_the_last_ones_in_small_predict_them() -> None:
    last = np.linspace(0.3, 0.9, 12)
    rows = [
        (f, n, progress, score * progress) for f in ("s",) for n, score in enumerate(last) for progress in (0.5, 1.0)
    ]
    epochs = pd.DataFrame(rows, columns=["search", "trial", "progress", "val_accuracy"])
    trials = pd.DataFrame({"search": "s", "trial": range(12), "schedule": "step", "state": "completed"})
    results = rungs.correlations(trials, epochs)
    assert results["fraction"].tolist() == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9]), "there is no score before"
    assert (results["correlation"] == 1).all()
    assert "the interval lies above 0.5 from 50 % to the end." in rungs.conclude(results)


def test_a_study_of_trials_without_an_epoch_says_so() -> None:
    columns = ["search", "trial", "state", "schedule"]
    trials, epochs = pd.DataFrame([("s", 0, "failed", "step")], columns=columns), epochs_frame({})
    assert "there is no result" in rungs.conclude(rungs.correlations(trials, epochs))


def test_the_payoff_counts_all_that_was_spent() -> None:
    trials = pd.DataFrame(
        {
            "search": "s",
            "trial": [2, 0, 1, 3],
            "state": ["completed", "completed", "pruned", "completed"],
            "gain": [4.0, 0.0, None, 10.0],
            "seconds": [10.0, 10.0, 5.0, 15.0],
        }
    )
    results = payoff.payoff(trials)
    assert results["spent"].tolist() == [10, 15, 25, 40]
    assert results["gain"].tolist() == [0, 0, 4, 10]
    conclusion = payoff.conclude(results)
    assert "gained 10.00 points for 40 s of training, as much as 4.0 runs of its baseline." in conclusion
    assert "Half of the gain came after 100 % of the time. The gain is not confirmed." in conclusion
    judged = trials.assign(verdict="tied", confirmed_gain=[np.nan, np.nan, np.nan, 2.5], gain_low=-1.0, gain_high=6.0)
    conclusion = payoff.conclude(payoff.payoff(judged))
    assert "Retrained with fresh seeds: tied, +2.50 points (-1.00 to +6.00)." in conclusion
