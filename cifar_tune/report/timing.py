"""Where the time of a search went, from what its workers measured (search/times.py) and the learning curves."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from cifar_tune.trials.facts import CHECKPOINT, DATA, EARLIER, ENDED_AT, FIRST_EPOCH, QUEUED, STARTUP, TAKEN_AT, WORKER
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_hours

Part = Literal["queue", "start-up", "data", "training", "evaluation", "checkpoint", "idle"]

PARTS: tuple[Part, ...] = ("queue", "start-up", "data", "training", "evaluation", "checkpoint", "idle")
PAUSE_SECONDS = 120.0  # in which no worker did anything: the search was interrupted, and nobody waited


class Span(NamedTuple):
    """What a worker did for a trial, from `start` (seconds since 1970) on; epochs lie behind one another, as sums."""

    worker: str
    trial: int
    part: Part
    start: float
    seconds: float

    @property
    def end(self) -> float:
        """When it was over."""
        return self.start + self.seconds


def spans(trials: Sequence[Trial]) -> list[Span]:
    """In order of time; of trials whose workers measured nothing there are none."""
    found = [span for trial in trials if TAKEN_AT in trial.facts for span in _spans_of(trial)]
    return sorted(found, key=lambda span: span.start)


@dataclass(frozen=True)
class Pause:
    """While no worker recorded anything: after so many seconds of the search, and for how many."""

    after: float
    seconds: float


def without_pauses(found: Sequence[Span]) -> tuple[list[Span], list[Pause]]:
    """The spans in seconds of the search, which stands still while nothing is recorded; and where it does."""
    moved: list[Span] = []
    pauses: list[Pause] = []
    shift = found[0].start if found else 0.0
    for session in _sessions(found):
        if moved:
            end = max(span.end for span in moved)
            pauses.append(Pause(end, session[0].start - shift - end))
            shift = session[0].start - end
        moved += [span._replace(start=span.start - shift) for span in session]
    return moved, pauses


def clock_seconds(found: Sequence[Span]) -> float:
    """From the first trial's decision to the last one's end, without the pauses."""
    return sum(max(span.end for span in session) - session[0].start for session in _sessions(found))


def most_at_a_time(found: Sequence[Span]) -> int:
    """Workers that had a trial at the same moment; over its resumptions a search has had more of them."""
    busy = [span for span in found if span.part != "queue"]
    events = sorted([*((span.start, 1, span.worker) for span in busy), *((span.end, -1, span.worker) for span in busy)])
    active: Counter[str] = Counter()
    most = 0
    for _, change, worker in events:
        active[worker] += change
        if not active[worker]:
            del active[worker]
        most = max(most, len(active))
    return most


def seconds_by_part(found: Sequence[Span]) -> dict[Part, float]:
    """Of all workers together. A worker is idle where it has no trial, from its first one until the search pauses.

    One after whose last trial another worker began was that worker's predecessor: its time ends there.
    """
    seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
    for span in found:
        seconds[span.part] += span.seconds
    seconds["idle"] = sum(_idle(session) for session in _sessions(found))
    return seconds


def describe_time(found: Sequence[Span]) -> str:
    """The shares, and the pauses, in sentences; nothing where nothing was measured."""
    seconds = seconds_by_part(found)
    total = sum(seconds.values())
    if not total:
        return ""
    ordered = sorted(PARTS, key=lambda part: -seconds[part])
    shares = ", ".join(
        f"{part} {100 * seconds[part] / total:.1f} %" for part in ordered if seconds[part] >= total / 2000
    )
    return f"Of {total:,.0f} s of all workers together: {shares}.{_told_pauses(found)}"


def _told_pauses(found: Sequence[Span]) -> str:
    pauses = without_pauses(found)[1]
    if not pauses:
        return ""
    times = "once, for" if len(pauses) == 1 else f"{len(pauses)} times, for together"
    length = format_hours(sum(pause.seconds for pause in pauses))
    return f" Besides, nothing was recorded {times} {length}: the search was interrupted, or a worker died."


Epochs: TypeAlias = Sequence[Mapping[str, float]]


def _spans_of(trial: Trial) -> Iterator[Span]:
    """Of each worker that had it. The next in line for one that died was not queued while that was still at work."""
    end = float("-inf")
    for facts, epochs in _stints(trial):
        for span in _spans(trial, facts, epochs, since=end):
            yield span
            end = span.end


def _stints(trial: Trial) -> Iterator[tuple[Mapping[str, Any], Epochs]]:
    """For each worker that had the trial what it measured, and the epochs that it trained."""
    measured = [*trial.facts.get(EARLIER, ()), trial.facts]
    starts = [facts.get(FIRST_EPOCH, 0) for facts in measured]
    for facts, start, end in zip(measured, starts, [*starts[1:], trial.epochs], strict=True):
        yield facts, trial.curve[start:end]


def _spans(trial: Trial, facts: Mapping[str, Any], epochs: Epochs, since: float) -> Iterator[Span]:
    queued = max(0.0, min(facts[QUEUED], facts[TAKEN_AT] - since))
    num_images = trial.recipe.num_train_images
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


def _sessions(found: Sequence[Span]) -> list[list[Span]]:
    """The spans between two pauses of the whole search."""
    sessions: list[list[Span]] = []
    end = float("-inf")
    for span in found:
        if span.start > end + PAUSE_SECONDS:
            sessions.append([])
        sessions[-1].append(span)
        end = max(end, span.end)
    return sessions


def _idle(session: Sequence[Span]) -> float:
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
