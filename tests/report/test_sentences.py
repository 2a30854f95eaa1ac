"""The sentences about a search: its outcome, what its best trial changed, what it cost."""

import re
from dataclasses import replace

import pytest
from helpers.made_trials import RECIPE, made_up_trials, trial

from cifar_tune.evaluation.significance import Gain
from cifar_tune.evaluation.test_set_log import Opening
from cifar_tune.report.findings import Findings
from cifar_tune.report.pruning import pruning_by_rung
from cifar_tune.report.sentences import (
    describe_cost,
    describe_difference,
    describe_gain,
    describe_openings,
    describe_search,
    headline,
    pruning_caption,
    pruning_sentence,
)
from cifar_tune.trials.facts import TAKEN_AT
from cifar_tune.trials.goal import Goal
from cifar_tune.trials.trial import State, Trial


@pytest.mark.parametrize(
    ("trials", "sentences"),
    [
        ([], "No trial has completed."),
        ([trial(0, None, "failed"), trial(1, 0.9, "pruned")], "No trial has completed: 1 failed, 1 pruned."),
        (
            [trial(0, None, "failed"), trial(1, 0.6)],
            "Best of 2 trials (1 complete): trial 1 with 60.00 %. The baseline has not completed, so there is no gain "
            "to state.",
        ),
        (
            [trial(0, 0.5), trial(1, 0.5), trial(2, 0.4)],
            "Best of 3 trials: trial 0 with 50.00 %. It is the baseline; no trial beat it.",
        ),
        (
            [trial(0, 0.5), trial(1, 0.62345)],
            # Two shares of 500 images: 1.96 * sqrt((0.62345 * 0.37655 + 0.25) / 500) = 0.0610
            "Best of 2 trials: trial 1 with 62.34 %, +12.34 points over the baseline's 50.00 % (one run each). "
            "Unconfirmed; the sampling error of 500 validation images alone is up to ±6.10 points (95 %).",
        ),
        (
            [trial(0, 0.5), trial(1, 0.4), trial(2, 0.5, "interrupted")],
            "Best of 3 trials (2 complete, 1 interrupted): trial 0 with 50.00 %. It is the baseline; no trial beat it.",
        ),
    ],
    ids=["no trials", "none completed", "no baseline", "baseline is best", "gain", "interrupted"],
)
def test_the_headline_states_the_best_its_gain_and_over_what(trials: list[Trial], sentences: str) -> None:
    assert headline(trials) == sentences


def test_what_the_best_trial_changed_from_the_baseline_is_stated() -> None:
    adam = RECIPE.replace({"optimizer/name": "adam", "optimizer/lr": 0.00123456, "batch_size": 64})
    params = {"optimizer/name": "adam", "optimizer/adam/lr": 0.00123456, "label_smoothing": 0.0}
    best = trial(1, 0.7, recipe=adam, params=params)
    changes = "Changed from the baseline: optimizer/name=adam (was sgd), optimizer/lr=0.00123 (was 0.1)."
    assert describe_difference([trial(0, 0.5), best]) == changes, "of what was searched"
    assert describe_difference([trial(0, 0.5)]) == describe_difference([]) == ""
    near = trial(1, 0.7, recipe=RECIPE.replace({"optimizer/lr": 0.10001}), params={"optimizer/lr": 0.10001})
    changes = "Changed from the baseline: optimizer/lr=0.10001 (was 0.1)."
    assert describe_difference([trial(0, 0.5), near]) == changes


def test_the_cost_of_a_search_counts_epochs_training_and_the_clock() -> None:
    assert describe_cost(made_up_trials(["completed"] * 5, epochs=4)) == (
        "The search took 24 epochs and 48 seconds of training and validation, as much as 6.0 runs of the baseline. "
        "Wall-clock time: 20 seconds, with at most 4 trials at a time."
    )


def test_a_wall_clock_time_that_not_all_trials_have_is_not_stated() -> None:
    trials = made_up_trials(["completed"] * 5)
    assert "Wall-clock time" in describe_cost(trials)
    older = {name: value for name, value in trials[2].facts.items() if name != TAKEN_AT}
    assert "Wall-clock time" not in describe_cost([*trials[:2], replace(trials[2], facts=older), *trials[3:]])


def test_openings_of_the_test_set_are_counted() -> None:
    openings = [Opening(1, "2026-01-02"), Opening(2, "2026-03-04")]
    assert describe_openings([]) == "The test set of this search was never opened."
    assert describe_openings(openings[:1]) == "The test set of this search was opened once, on 2026-01-02."
    assert describe_openings(openings) == "The test set of this search was opened 2 times, last on 2026-03-04."


def test_a_confirmed_gain_is_stated_with_its_verdict_and_interval() -> None:
    assert describe_gain(Gain(0.012, 0.004, 0.02)) == "real, +1.20 points (+0.40 to +2.00)"
    assert describe_gain(None) == "not judged: not all runs of the baseline completed"


SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def test_no_sentence_about_a_search_is_longer_than_25_words() -> None:
    states: list[State] = ["completed", "pruned", "pruned", "diverged", "failed"]
    trials = [replace(each, goal=Goal(minimize="num_parameters")) for each in made_up_trials(states * 8)]
    findings = Findings({"made": trials}, openings={"made": [Opening(1, "2026-01-02")]})
    searched_values = re.compile(r"[\w/]+=\S+ \(was \S+\)")  # a list as long as the space has values
    rungs = [replace(rung, num_let_through=1) for rung in pruning_by_rung(trials)]
    text = searched_values.sub("", " ".join([*describe_search(findings, "made"), pruning_caption(trials, rungs)]))
    sentences = SENTENCE_END.split(f"{text} {pruning_sentence(trials, rungs)}")
    assert len(sentences) > 8
    for sentence in sentences:
        assert len(sentence.replace(" %", "%").split()) <= 25, sentence
