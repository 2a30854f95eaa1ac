"""What stopping trials early saved and risked, from the trials alone. The table that shows it is in report/text.py.

How a stopped trial would have ended is not known. It is estimated from the trials that were let through: those that the
scheduler would have stopped at the same rung, and trained on to measure this. They are a fair sample of the stopped
trials, but a small one, so every estimate comes with its n.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import StatisticsError, correlation

from cifar_tune.search.rungs import Group, group_of
from cifar_tune.trials.facts import LET_THROUGH, RUNGS, STOPPED_AT
from cifar_tune.trials.trial import Trial

MIN_RANKED = 3  # trials; a rank correlation of fewer says nothing


@dataclass(frozen=True)
class RungFindings:
    """What one rung, a `fraction` of the schedule, showed of one group of schedules.

    `rank_correlation` is that of the scores at the rung and at the end, over `num_ranked` complete trials. Besides the
    trials stopped there, `num_let_through` were let through and are over; `num_missed_top` of these ended among the
    best. `epochs_saved` is an upper bound, since early stopping might have ended a trial too.
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
        """How many of the stopped trials would have ended among the best; None where no trial was let through."""
        if not self.num_let_through:
            return None
        return self.num_stopped * self.num_missed_top / self.num_let_through


def num_top(trials: Iterable[Trial]) -> int:
    """The number of trials that are called the best: a tenth of the complete ones within the limits, at least one."""
    return max(1, sum(trial.counts for trial in trials) // 10)


def pruning_by_rung(trials: Sequence[Trial]) -> list[RungFindings]:
    """The findings of one search by group of schedules and rung; none for a rung that no trial reached."""
    top = _top_numbers(trials)
    judged: dict[tuple[Group, float], list[Trial]] = defaultdict(list)
    for trial in trials:
        for fraction in _rungs(trial):
            judged[group_of(trial.recipe), fraction].append(trial)
    return [_findings(fraction, group, judged[group, fraction], top) for group, fraction in sorted(judged)]


def any_let_through(rungs: Iterable[RungFindings]) -> bool:
    """Whether it can be estimated what was missed; schedulers that pause trials let none through."""
    return any(rung.num_let_through for rung in rungs)


def seconds_per_epoch(trial: Trial) -> float:
    """The mean over a trial's own epochs; in two-phase training the second phase may take longer than that."""
    return trial.seconds / trial.epochs


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The rank correlation, equals sharing their ranks; None below MIN_RANKED pairs, or where one side is constant."""
    if len(first) < MIN_RANKED:
        return None
    try:
        return correlation(_ranks(first), _ranks(second))
    except StatisticsError:
        return None


def _rungs(trial: Trial) -> dict[float, int]:
    """The rungs at which a trial was judged, each with the epoch after which it was."""
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
    """The numbers of the best complete trials; more than `num_top` where several share the last place."""
    complete = [trial for trial in trials if trial.counts]
    scores = sorted((_score(trial) for trial in complete), reverse=True)[: num_top(trials)]
    return {trial.number for trial in complete if _score(trial) >= scores[-1]}


def _score(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score


def _score_at(trial: Trial, epoch: int) -> float:
    """The score that the trial had after that epoch."""
    return _score(replace(trial, state="running", curve=trial.curve[:epoch]))


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equals share the mean of theirs."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value) + 1) / 2 for value in values]
