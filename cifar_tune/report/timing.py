"""Where the time of a search went, from what its workers recorded (trials/facts.py) and the learning curves."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from cifar_tune.trials.facts import CHECKPOINT, DATA, EARLIER, ENDED_AT, FIRST_EPOCH, QUEUED, STARTUP, TAKEN_AT, WORKER
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_hours, format_percent

Part = Literal["queue", "start-up", "data", "training", "evaluation", "checkpoint", "idle"]
Epochs: TypeAlias = Sequence[Mapping[str, float]]

PARTS: tuple[Part, ...] = ("queue", "start-up", "data", "training", "evaluation", "checkpoint", "idle")
PAUSE_SECONDS = 120.0  # without a record of any worker; the search was interrupted meanwhile


class Span(NamedTuple):
    """A part of a worker's time with a trial; `start` is in seconds since 1970.

    Of each part there is one span per stint of a worker, as long as the sum over its epochs; they follow one another.
    """

    worker: str
    trial: int
    part: Part
    start: float
    seconds: float

    @property
    def end(self) -> float:
        """When it was over, in seconds since 1970."""
        return self.start + self.seconds


def spans(trials: Sequence[Trial]) -> list[Span]:
    """The recorded spans in order of time; a trial whose workers recorded no times has none."""
    recorded = [span for trial in trials if TAKEN_AT in trial.facts for span in _spans_of(trial)]
    return sorted(recorded, key=lambda span: span.start)


@dataclass(frozen=True)
class Pause:
    """A time in which no worker recorded anything, for `seconds`, `after` so many seconds of the search."""

    after: float
    seconds: float


def without_pauses(recorded: Sequence[Span]) -> tuple[list[Span], list[Pause]]:
    """The spans in seconds since the search began, pauses not counted, and the pauses."""
    moved: list[Span] = []
    pauses: list[Pause] = []
    shift = recorded[0].start if recorded else 0.0
    for session in _sessions(recorded):
        if moved:
            end = max(span.end for span in moved)
            pauses.append(Pause(end, session[0].start - shift - end))
            shift = session[0].start - end
        moved += [span._replace(start=span.start - shift) for span in session]
    return moved, pauses


def clock_seconds(recorded: Sequence[Span]) -> float:
    """Wall-clock time from the first trial's decision to the last one's end, without the pauses."""
    return sum(max(span.end for span in session) - session[0].start for session in _sessions(recorded))


def most_at_a_time(recorded: Sequence[Span]) -> int:
    """The most workers that had a trial at the same moment; over its resumptions a search has had more of them."""
    busy = [span for span in recorded if span.part != "queue"]
    events = sorted([*((span.start, 1, span.worker) for span in busy), *((span.end, -1, span.worker) for span in busy)])
    active: Counter[str] = Counter()
    most = 0
    for _, change, worker in events:
        active[worker] += change
        if not active[worker]:
            del active[worker]
        most = max(most, len(active))
    return most


def seconds_by_part(recorded: Sequence[Span]) -> dict[Part, float]:
    """Seconds of all workers together. A worker without a trial is idle from its first trial until the search pauses.

    A worker that another one replaces, which begins after its last trial, is idle no longer.
    """
    seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
    for span in recorded:
        seconds[span.part] += span.seconds
    seconds["idle"] = sum(_idle(session) for session in _sessions(recorded))
    return seconds


def describe_time(recorded: Sequence[Span]) -> str:
    """The share of each part, and the pauses, in sentences; nothing where nothing was recorded."""
    seconds = seconds_by_part(recorded)
    total = sum(seconds.values())
    if not total:
        return ""
    ordered = sorted(PARTS, key=lambda part: -seconds[part])
    shares = ", ".join(
        f"{part} {format_percent(seconds[part] / total, 1)}" for part in ordered if seconds[part] >= total / 2000
    )
    return f"Of {total:,.0f} s of worker time: {shares}.{_describe_pauses(recorded)}"


def _describe_pauses(recorded: Sequence[Span]) -> str:
    pauses = without_pauses(recorded)[1]
    if not pauses:
        return ""
    length = format_hours(sum(pause.seconds for pause in pauses))
    times = length if len(pauses) == 1 else f"{length} in {len(pauses)} pauses"
    return f" In addition, nothing was recorded for {times}: the search was interrupted, or a worker died."


def _spans_of(trial: Trial) -> Iterator[Span]:
    """The spans of each worker that had the trial.

    A worker that took over from one that died did not queue while that one was still at work.
    """
    end = float("-inf")
    for facts, epochs in _stints(trial):
        for span in _spans(trial, facts, epochs, since=end):
            yield span
            end = span.end


def _stints(trial: Trial) -> Iterator[tuple[Mapping[str, Any], Epochs]]:
    """For each worker that had the trial the facts it recorded, and the epochs it trained."""
    recorded = [*trial.facts.get(EARLIER, ()), trial.facts]
    starts = [facts.get(FIRST_EPOCH, 0) for facts in recorded]
    for facts, start, end in zip(recorded, starts, [*starts[1:], trial.epochs], strict=True):
        yield facts, trial.curve[start:end]


def _spans(trial: Trial, facts: Mapping[str, Any], epochs: Epochs, since: float) -> Iterator[Span]:
    queued = max(0.0, min(facts[QUEUED], facts[TAKEN_AT] - since))
    num_images = trial.num_train_images or 0
    training = sum(min(num_images / epoch["images_per_second"], epoch["seconds"]) for epoch in epochs)
    whole = sum(epoch["seconds"] for epoch in epochs)
    parts: dict[Part, float] = {
        "queue": queued,
        "start-up": facts.get(STARTUP, 0.0),
        "data": facts.get(DATA, 0.0),
        "training": training,
        "evaluation": whole - training,
        "checkpoint": facts.get(CHECKPOINT, 0.0),
    }
    if ENDED_AT in facts:  # in the middle of an epoch, which was never recorded
        taken = facts[ENDED_AT] - facts[TAKEN_AT] - sum(parts.values()) + parts["queue"]
        parts["training"] += max(0.0, taken)
    start = facts[TAKEN_AT] - queued
    for part, seconds in parts.items():
        if seconds > 0:
            yield Span(facts[WORKER], trial.number, part, start, seconds)
            start += seconds


def _sessions(recorded: Sequence[Span]) -> list[list[Span]]:
    """The spans between two pauses of the whole search."""
    sessions: list[list[Span]] = []
    end = float("-inf")
    for span in recorded:
        if span.start > end + PAUSE_SECONDS:
            sessions.append([])
        sessions[-1].append(span)
        end = max(end, span.end)
    return sessions


def _idle(session: Sequence[Span]) -> float:
    """Idle seconds of all workers in a session."""
    by_worker: dict[str, list[Span]] = defaultdict(list)
    for span in session:
        by_worker[span.worker].append(span)
    starts = {worker: min(span.start for span in own) for worker, own in by_worker.items()}
    end, idle = max(span.end for span in session), 0.0
    for worker, own in by_worker.items():
        last = max(span.end for span in own)
        was_replaced = any(start >= last for start in starts.values())
        idle += max(0.0, (last if was_replaced else end) - starts[worker] - sum(span.seconds for span in own))
    return idle
