"""What a command leaves in MLflow: its trials while they run, and its results once they are printed.

The store notes what MLflow may lack, so that the next command on the search delivers it. Nothing here ends a command,
except what is known to be wrong before its work begins.
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from cifar_tune.data.images import TrainingData
from cifar_tune.errors import UserError
from cifar_tune.evaluation.reruns import runs_name
from cifar_tune.evaluation.significance import estimate_score
from cifar_tune.evaluation.test_set import Outcome, free_weights, read_evaluation
from cifar_tune.interrupts import Interrupted, raise_if_requested
from cifar_tune.provenance import git_commit, hardware, package_versions
from cifar_tune.report.columns import BAND, band
from cifar_tune.report.sentences import describe_search
from cifar_tune.search.record import Record
from cifar_tune.store import Store, model_name
from cifar_tune.tracking.delivery import Delivery, Job
from cifar_tune.tracking.outbox import Outbox
from cifar_tune.tracking.subject import Subject
from cifar_tune.training.scores import ScoreName
from cifar_tune.trials.ranking import best_trial
from cifar_tune.trials.reading import (
    NUM_SHOWN,
    RUNS,
    derived_names,
    read_attributes,
    read_trials_of,
    write_attribute,
)
from cifar_tune.trials.trial import State
from cifar_tune.wording import format_count, format_percent, format_percent_range, format_score

# Attributes of a search or of its reruns as a whole.
SUBJECT = "tracking"  # the search as MLflow shows it
UNPUBLISHED = "unpublished"  # whether MLflow may lack its results: of a search its outcome, of an evaluation its page
PAGE = "page"  # in an evaluation's folder: index.html with its images
PUBLISHED = "told"  # whether an evaluation is complete: its page and its export are written

UNKNOWN = -1  # as the number of trials that MLflow has
CHECK_SECONDS = 15.0  # to wait for MLflow's first answer before trials start: its import and a database take some
INTERRUPTED_SECONDS = 3.0  # to deliver the end of trials after Ctrl-C
POLL_SECONDS = 0.2  # between two looks whether the user wants to end the command
JOB_SECONDS = 600.0  # to publish one result while MLflow answers: a model is built and uploaded


def is_published(store: Store, search: str) -> bool:
    """Whether MLflow has all of the search and of its reruns, as far as this version began them."""
    family = _read_family(store, search)
    return not any(_lacks_trials(family[name]) or _has_result(name, family[name]) for name in family)


def _read_family(store: Store, search: str) -> dict[str, dict[str, Any]]:
    return {name: read_attributes(store, name) for name in [search, *derived_names(store, search)]}


class Publisher:
    """The deliveries to MLflow of one command, which works on a `record` of the search; `publishing` makes one."""

    def __init__(self, store: Store, search: str, record: Record, console: Console) -> None:
        self._store = store
        self._search = search
        self._record = record
        self._console = console
        self._outbox: Outbox | None = None
        self._delivery: Delivery | None = None  # of the record
        self._is_at_work = False  # whether trials may have changed

    def start(self) -> None:
        """Begin to connect; a UserError for an address that is of no use."""
        self._outbox = self._outbox or Outbox(self._store, self._console)

    def begin(self, data: TrainingData | None = None) -> Delivery:
        """Begin to deliver the trials of the record, which follow on the `data`; None if none will follow."""
        self.start()
        assert self._outbox is not None
        record = self._record
        subject, are_shown = _subject(record, data), record.is_shown
        record.set_attribute(SUBJECT, subject.dump())
        record.set_attribute(NUM_SHOWN, UNKNOWN)
        if _evaluation_count(record.name) is not None:
            record.set_attribute(UNPUBLISHED, True)
        write_attribute(self._store, self._search, UNPUBLISHED, True)
        self._delivery = Delivery(
            self._outbox, subject, record.trials(), are_shown=are_shown, on_run=record.set_mlflow_run
        )
        return self._delivery

    def resume(self) -> None:
        """Deliver the trials of the record, which is complete, unless that has begun already."""
        if self._delivery is None:
            self.begin()
            self.end("completed")

    def check(self) -> None:
        """Raise a UserError if MLflow refuses what no waiting will mend, as far as that is known by now."""
        if self._outbox is not None:
            self._outbox.check()

    def wait_for_answer(self) -> None:
        """Wait until MLflow has answered or not, and check it for the last time: the work of the command begins."""
        assert self._outbox is not None
        deadline = time.monotonic() + CHECK_SECONDS
        while not self._outbox.has_answered(POLL_SECONDS) and time.monotonic() < deadline:
            raise_if_requested()
        self._outbox.check(is_last=True)
        self._is_at_work = True

    def end(self, state: State) -> None:
        """Note that no trial of the record will change any more."""
        assert self._delivery is not None
        self._delivery.finish(state)

    def deliver(self) -> None:
        """Deliver all that MLflow lacks of the search and its reruns, once the command has printed its results."""
        try:
            self._deliver()
        except (Interrupted, KeyboardInterrupt):
            self._explain(self._delivery.num_undelivered if self._delivery else 0, has_results=True)
            self._delivery = None  # so that nothing is waited for again
            raise

    def _deliver(self) -> None:
        self.start()
        assert self._outbox is not None
        num_undelivered = self._finish_own(None)
        for name in self._leftovers():
            if not self._outbox.is_away:
                num_undelivered += self._deliver_leftover(name)
        names = [name for name, attributes in self._family().items() if _has_result(name, attributes)]
        if names and not num_undelivered and not self._outbox.is_away:
            self._console.print("Writing the results to MLflow ...", style="dim")
            names = [name for name in sorted(names, key=_evaluation_first) if not self._publish(name)]
        self._explain(num_undelivered, has_results=bool(names))

    def deliver_shortly(self) -> None:
        """Deliver the end of the trials in the few seconds that an interrupted command has."""
        if self._outbox is None or self._outbox.is_cut_off:
            return
        if self._delivery is not None and self._is_at_work and self._record.num_started:
            self._explain(self._finish_own(INTERRUPTED_SECONDS), has_results=False)

    def close(self) -> None:
        """Deliver nothing more."""
        if self._outbox is not None:
            self._outbox.close()

    def _finish_own(self, seconds: float | None) -> int:
        """Wait until the record of this command is delivered; the number of trials that are not."""
        if self._delivery is None or self._outbox is None:
            return 0
        if seconds is None:
            self._outbox.wait()
        else:
            self._outbox.wait(total=seconds, is_quiet=True)
        trials = {trial.number: trial.mlflow_run_id for trial in self._record.trials()}
        self._note_runs(self._record.name, self._delivery, trials)
        if self._delivery.is_delivered:
            self._record.set_shown()
        return self._delivery.num_undelivered

    def _note_runs(self, name: str, delivery: Delivery, known: Mapping[int, str | None]) -> None:
        """Note the runs of trials that had ended before they were delivered, which Optuna does not let change."""
        new = {str(number): run_id for number, run_id in delivery.runs.items() if known.get(number) != run_id}
        if new:
            write_attribute(self._store, name, RUNS, {**read_attributes(self._store, name).get(RUNS, {}), **new})

    def _family(self) -> dict[str, dict[str, Any]]:
        return _read_family(self._store, self._search)

    def _leftovers(self) -> list[str]:
        """The other records of the search of which MLflow may lack trials, or the run to which a result belongs."""
        return [
            name
            for name, attributes in self._family().items()
            if name != self._record.name
            and (_lacks_trials(attributes) or (name != self._search and _has_result(name, attributes)))
        ]

    def _deliver_leftover(self, name: str) -> int:
        """Deliver another record, unless another process works on it; the number of trials that are not delivered."""
        assert self._outbox is not None
        subject = Subject.load(read_attributes(self._store, name)[SUBJECT])
        try:
            with self._store.running(name):
                trials = read_trials_of(self._store, name)
                trials = [replace(t, state="interrupted") if t.state == "running" else t for t in trials]
                delivery = Delivery(self._outbox, subject, trials, are_shown=False)
                delivery.finish("completed" if all(trial.is_over for trial in trials) else "interrupted")
                self._outbox.wait()
                self._note_runs(name, delivery, {trial.number: trial.mlflow_run_id for trial in trials})
                if delivery.is_delivered:
                    write_attribute(self._store, name, NUM_SHOWN, len(trials))
                return delivery.num_undelivered
        except UserError:
            return 0

    def _publish(self, name: str) -> bool:
        """Publish the outcome of the search, or the page and the model of one of its evaluations."""
        assert self._outbox is not None
        count = _evaluation_count(name)
        where = self._store, self._search
        job = Job(self._outbox, _outcome(*where) if count is None else _evaluation(*where, count))
        self._outbox.wait(total=JOB_SECONDS, no_progress=JOB_SECONDS)
        if job.is_done:
            write_attribute(self._store, name, UNPUBLISHED, False)
        return job.is_done

    def _explain(self, num_trials: int, *, has_results: bool) -> None:
        """Say what MLflow lacks."""
        parts = [format_count(num_trials, "trial")] if num_trials else []
        parts += ["the results"] if has_results else []
        if parts:
            lacking = f"MLflow lacks {' and '.join(parts)} of {self._search}"
            sentence = f"{lacking}; the next `run`, `confirm` or `evaluate` of it delivers them."
            self._console.print(sentence, style="yellow", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def publishing(store: Store, search: str, record: Record, console: Console) -> Iterator[Publisher]:
    """A publisher for the time of a command, which calls `deliver` once its results are printed."""
    publisher = Publisher(store, search, record, console)
    try:
        yield publisher
    except BaseException:
        publisher.deliver_shortly()
        raise
    finally:
        publisher.close()


def _evaluation_count(name: str) -> int | None:
    """The count of an evaluation by the name of its record; None for any other record."""
    match = re.search(r"/evaluate-(\d+)$", name)
    return int(match[1]) if match else None


def _evaluation_first(name: str) -> tuple[bool, int]:
    """For sorting: evaluations by their count, and the search itself, which sums them up, last."""
    count = _evaluation_count(name)
    return count is None, count or 0


def _lacks_trials(attributes: Mapping[str, Any]) -> bool:
    return attributes.get(NUM_SHOWN) == UNKNOWN


def _has_result(name: str, attributes: Mapping[str, Any]) -> bool:
    is_ready = _evaluation_count(name) is None or PUBLISHED in attributes
    return bool(attributes.get(UNPUBLISHED, False)) and is_ready


def _subject(record: Record, data: TrainingData | None) -> Subject:
    """The record as MLflow shows it; without data, as it was noted when it began."""
    attributes = record.study.user_attrs
    if data is None and SUBJECT in attributes:
        return Subject.load(attributes[SUBJECT])
    tags = {**package_versions(), **hardware()}
    commit = git_commit(record.space.path)
    if commit:
        tags["mlflow.source.git.commit"] = commit
    return Subject(
        search=record.name,
        id=record.id,
        dataset=record.space.baselines[0].dataset,
        digest=attributes["data"] if data is None else data.digest,
        size="" if data is None else f"{len(data.train)} + {len(data.val)} images",
        description=record.space.description,
        tags=tags,
        score=record.goal.score,
    )


def _outcome(store: Store, search: str) -> Callable[[], None]:
    """The work of publishing the findings on a search at its run: sentences, metrics and the HTML report."""
    from cifar_tune.report.findings import read_findings
    from cifar_tune.report.page import render_page  # with plotly, which only this needs

    findings, search_id = read_findings(store, [search]), read_attributes(store, search)["id"]
    best, confirmation = best_trial(findings.searches[search]), findings.confirmations.get(search)
    gain = confirmation.gains.get(best.number) if best and confirmation else None
    unjudged = dict.fromkeys(BAND, math.nan) if confirmation else {}  # replaces the gain of an earlier best trial
    metrics = band(gain) if gain else unjudged
    sentences, page = "\n\n".join(describe_search(findings, search)), render_page(findings)

    def publish() -> None:
        from cifar_tune.tracking.runs import log_files, write_outcome

        write_outcome(store, search_id, sentences)
        with TemporaryDirectory() as folder:
            (Path(folder) / "report.html").write_text(page, encoding="utf-8")
            log_files(store, search_id, Path(folder), metrics)

    return publish


def _evaluation(store: Store, search: str, count: int) -> Callable[[], None]:
    """The work of publishing an evaluation at its run, with the winner in the model registry."""
    from cifar_tune.report.evaluation_page import metrics_of

    evaluation = read_evaluation(store, search, count)
    assert evaluation is not None
    record_name = runs_name(search, "evaluate", count)
    search_id, metrics = read_attributes(store, record_name)["id"], metrics_of(evaluation)
    number = evaluation.winner.number
    weights = free_weights(store, search, count)[number]
    num_seeds = len(evaluation.design.seeds)
    results = [_describe_result(evaluation.winner, score) for score in evaluation.scores]
    description = (
        f"Trial {number} of {search}: {', '.join(results)}, the mean of {num_seeds} seeds. "
        f"This network is the one of the first seed."
    )

    def publish() -> None:
        from cifar_tune.tracking.registry import register_winner
        from cifar_tune.tracking.runs import log_files
        from cifar_tune.training.inference import load_classifier

        log_files(store, search_id, store.search(record_name) / PAGE, metrics)
        classifier, _ = load_classifier(weights)
        register_winner(store, model_name(search), search_id, classifier, description)

    return publish


def _describe_result(outcome: Outcome, score: ScoreName) -> str:
    """`90.00 % of the test images (88.00 to 92.00)`, or another score by its name, with its 95 % interval."""
    estimate = estimate_score(outcome.values(score))
    share = (
        f"{format_percent(estimate.mean)} of the test images"
        if score == "accuracy"
        else format_score(score, estimate.mean)
    )
    return f"{share} ({format_percent_range(estimate.low, estimate.high)})"
