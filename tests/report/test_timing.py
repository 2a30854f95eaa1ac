"""Where the time of a search went: spans, pauses, idle workers."""

from dataclasses import replace

from helpers.made_trials import made_up_trials, spanning_trials

from cifar_tune.report.figures import DrawnSearch, timeline
from cifar_tune.report.timing import (
    clock_seconds,
    describe_time,
    most_at_a_time,
    seconds_by_part,
    spans,
    without_pauses,
)
from cifar_tune.trials.facts import ENDED_AT, FIRST_EPOCH, QUEUED, STARTUP, TAKEN_AT, WORKER, with_facts


def test_the_pauses_of_a_search_are_no_part_of_its_time() -> None:
    paused = spanning_trials(("a", 0, 10), ("b", 5, 10), ("c", 5000, 10))
    moved, pauses = without_pauses(spans(paused))
    assert [(span.worker, span.start) for span in moved] == [("a", 0), ("b", 5), ("c", 15)]
    assert [(pause.after, pause.seconds) for pause in pauses] == [(15, 4985)]
    assert clock_seconds(spans(paused)) == 25
    assert most_at_a_time(spans(paused)) == 2
    figure = timeline(DrawnSearch("made", paused))
    assert not isinstance(figure, str)
    assert [line.x0 for line in figure.layout.shapes] == [15]
    pause = " In addition, nothing was recorded for 83 minutes: the search was interrupted, or a worker died."
    assert describe_time(spans(paused)).endswith(pause)
    assert clock_seconds([]) == 0


def test_a_resumed_trial_has_the_times_of_every_worker_that_had_it() -> None:
    (first,) = made_up_trials([], epochs=5)
    measured = {WORKER: "a", TAKEN_AT: 100.0, QUEUED: 0.0, STARTUP: 2.0, FIRST_EPOCH: 0}
    facts = with_facts(with_facts({}, measured), measured)
    assert facts == measured
    for worker, start, first_epoch in (("b", 500.0, 2), ("c", 900.0, 3)):
        facts = with_facts(facts, {**measured, WORKER: worker, TAKEN_AT: start, FIRST_EPOCH: first_epoch})
    recorded = spans([replace(first, facts=facts)])
    assert [(span.worker, span.start, span.part, span.seconds) for span in recorded] == [
        ("a", 100, "start-up", 2),
        ("a", 102, "training", 4),
        ("b", 500, "start-up", 2),
        ("b", 502, "training", 2),
        ("c", 900, "start-up", 2),
        ("c", 902, "training", 4),
    ]


def test_a_worker_that_takes_over_from_a_dead_one_did_not_queue_while_that_was_at_work() -> None:
    """Ray hands over the time of the driver's decision unchanged."""
    (first,) = made_up_trials([], epochs=5)
    facts = {WORKER: "a", TAKEN_AT: 100.0, QUEUED: 1.0, STARTUP: 2.0, FIRST_EPOCH: 0}
    facts = with_facts(facts, {**facts, WORKER: "b", TAKEN_AT: 115.0, QUEUED: 16.0, FIRST_EPOCH: 5})
    queued = [(span.worker, span.seconds) for span in spans([replace(first, facts=facts)]) if span.part == "queue"]
    assert queued == [("a", 1), ("b", 3)], "the first one was at work until 112"


def test_a_worker_that_was_replaced_is_not_idle_afterwards() -> None:
    replaced = spanning_trials(("a", 0, 10), ("b", 0, 20), ("c", 30, 100))  # b waits for a to end, and is replaced
    assert seconds_by_part(spans(replaced))["idle"] == 0
    waiting = spanning_trials(("a", 0, 10), ("b", 0, 40))
    assert seconds_by_part(spans(waiting))["idle"] == 30


def test_the_epoch_in_which_a_trial_broke_down_is_training() -> None:
    (broken,) = spanning_trials(("a", 0, 2))
    broken = replace(broken, facts={**broken.facts, ENDED_AT: 100.0})
    assert seconds_by_part(spans([broken]))["training"] == 98
