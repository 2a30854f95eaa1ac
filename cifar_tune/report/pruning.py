"""What stopping trials early saved and risked, from the trials alone. The table that shows it is in report/text.py.

What a stopped trial would have come to is not known. It is estimated from those that would have been stopped at the
same rung and were let through, which are a fair sample of them, but a small one: no estimate is without its n.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import StatisticsError, correlation

from cifar_tune.search.rungs import Group, group_of
from cifar_tune.trials.facts import LET_THROUGH, RUNGS, STOPPED_AT
from cifar_tune.trials.trial import Trial

NUM_RANKED = 3  # of fewer trials a rank correlation says nothing


@dataclass(frozen=True)
class RungFindings:
    """One rung of one group of schedules.

    `rank_correlation` is that of the scores there and at the end, over `num_ranked` complete trials. Of the trials
    stopped there, `num_let_through` more would have been and are over: `num_missed_top` of them ended among the best.
    Epochs are saved at most, since early stopping might have ended a trial too.
    """

    fraction: float
    schedules: tuple[str, ...]
    num_phases: int
    rank_correlation: float | None
    num_ranked: int
    num_stopped: int
    num_let_through: int
    num_missed_top: int
    epochs_saved: int
    seconds_saved: float

    @property
    def estimated_missed(self) -> float | None:
        """How many of the stopped trials would have ended among the best; None where nothing was let through."""
        if not self.num_let_through:
            return None
        return self.num_stopped * self.num_missed_top / self.num_let_through


def num_top(trials: Iterable[Trial]) -> int:
    """How many are the best: a tenth of the complete trials within the limits, and one at least."""
    return max(1, sum(trial.counts for trial in trials) // 10)


def pruning_by_rung(trials: Sequence[Trial]) -> list[RungFindings]:
    """Of one search, by group of schedules and rung; none for a rung that no trial got to."""
    top = _top_numbers(trials)
    judged: dict[tuple[Group, float], list[Trial]] = defaultdict(list)
    for trial in trials:
        for fraction in _rungs(trial):
            judged[group_of(trial.recipe), fraction].append(trial)
    return [_findings(fraction, group, judged[group, fraction], top) for group, fraction in sorted(judged)]


def seconds_per_epoch(trial: Trial) -> float:
    """The mean over a trial's own epochs; of two phases the second may take longer than that."""
    return trial.seconds / trial.epochs


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The correlation of the ranks, equals sharing theirs; None below three pairs, or where one side is all equal."""
    if len(first) < NUM_RANKED:
        return None
    try:
        return correlation(_ranks(first), _ranks(second))
    except StatisticsError:
        return None


def _rungs(trial: Trial) -> dict[float, int]:
    """Where a trial was judged, and after which epoch."""
    rungs = {fraction: int(epoch) for epoch, fraction in trial.facts.get(RUNGS, {}).items()}
    return rungs | ({trial.facts[STOPPED_AT]: trial.epochs} if _is_stopped(trial) else {})


def _is_stopped(trial: Trial) -> bool:
    return trial.state == "pruned" and STOPPED_AT in trial.facts


def _findings(fraction: float, group: Group, trials: Sequence[Trial], top: set[int]) -> RungFindings:
    ranked = [trial for trial in trials if trial.is_complete]
    stopped = [trial for trial in trials if _is_stopped(trial) and trial.facts[STOPPED_AT] == fraction]
    let_through = [trial for trial in trials if trial.facts.get(LET_THROUGH) == _rungs(trial)[fraction]]
    ended = [trial for trial in let_through if trial.is_over and trial.state != "failed"]
    left = [(trial, trial.recipe.epochs - trial.epochs) for trial in stopped]
    return RungFindings(
        fraction=fraction,
        schedules=tuple(sorted({trial.recipe.schedule.name for trial in trials})),
        num_phases=group.num_phases,
        rank_correlation=spearman([_score_at(t, _rungs(t)[fraction]) for t in ranked], [_score(t) for t in ranked]),
        num_ranked=len(ranked),
        num_stopped=len(stopped),
        num_let_through=len(ended),
        num_missed_top=sum(trial.number in top for trial in ended),
        epochs_saved=sum(epochs for _, epochs in left),
        seconds_saved=sum(epochs * seconds_per_epoch(trial) for trial, epochs in left),
    )


def _top_numbers(trials: Sequence[Trial]) -> set[int]:
    """The best complete trials; more than `num_top` where the last of them has equals."""
    complete = [trial for trial in trials if trial.counts]
    scores = sorted((_score(trial) for trial in complete), reverse=True)[: num_top(trials)]
    return {trial.number for trial in complete if _score(trial) >= scores[-1]}


def _score(trial: Trial) -> float:
    assert trial.val_accuracy is not None
    return trial.val_accuracy


def _score_at(trial: Trial, epoch: int) -> float:
    """What was known after so many epochs."""
    return _score(replace(trial, state="running", curve=trial.curve[:epoch]))


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; equals get the mean of theirs."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value) + 1) / 2 for value in values]
