"""The best trials of a search: the winner, the best baseline, the Pareto front, the finalists of a confirmation."""

from collections.abc import Iterable, Sequence
from operator import itemgetter

from cifar_tune.recipe.recipe import Recipe
from cifar_tune.trials.goal import CostName
from cifar_tune.trials.trial import Trial


def best_baseline(trials: Iterable[Trial]) -> Trial | None:
    """The best completed baseline, from which gains are counted; the earlier one of equals."""
    complete = [trial for trial in trials if trial.is_baseline and trial.is_complete]
    return max(complete, key=lambda trial: (trial.score or 0.0, -trial.number), default=None)


def baseline_score(trials: Iterable[Trial]) -> float | None:
    """The score of the best baseline."""
    best = best_baseline(trials)
    return best.score if best else None


def gain_in_points(trial: Trial, baseline: float | None) -> float | None:
    """Percentage points above the baseline's accuracy; None if either is missing or the trial was not completed."""
    if baseline is None or trial.score is None or not trial.is_complete:
        return None
    return 100 * (trial.score - baseline)


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """The completed trial within its limits with the highest score; the earlier one of equals."""
    complete = [trial for trial in trials if trial.counts]
    return max(complete, key=lambda trial: (trial.score or 0.0, -trial.number), default=None)


class Leaders:
    """The best trial and the best baseline of those noted, which costs the same after many trials."""

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        trials = list(trials)
        self.best, self._baseline = best_trial(trials), best_baseline(trials)

    def note(self, trial: Trial) -> None:
        """Take in a trial's new state."""
        self.best = best_trial(filter(None, [self.best, trial]))
        self._baseline = best_baseline(filter(None, [self._baseline, trial]))

    @property
    def baseline(self) -> float | None:
        """The score of the best baseline."""
        return self._baseline.score if self._baseline else None


def pareto_front(trials: Iterable[Trial], cost: CostName) -> list[Trial]:
    """The Pareto front of score and cost of the completed trials within their limits, sorted by cost.

    Trials with equal scores and equal costs are all in it.
    """
    ranked = [(trial.cost(cost), -(trial.score or 0.0), trial) for trial in trials if trial.counts]
    ordered = sorted([(price, loss, trial) for price, loss, trial in ranked if price is not None], key=itemgetter(0, 1))
    front: list[Trial] = []
    last = (0.0, 1.0)
    for price, loss, trial in ordered:
        if loss < last[1] or (price, loss) == last:
            front.append(trial)
            last = (price, loss)
    return front


def best_trials(trials: Sequence[Trial]) -> list[Trial]:
    """The result of a search: the best trial, or the Pareto front where the search minimizes a cost."""
    minimize = trials[0].goal.minimize if trials else None
    if minimize:
        return pareto_front(trials, minimize)
    best = best_trial(trials)
    return [best] if best else []


def finalists(trials: Sequence[Trial], top: int) -> dict[int, Recipe]:
    """The `top` best recipes by trial number, best first, without the baseline's and without repetitions."""
    baseline = best_baseline(trials)
    ranked = sorted((trial for trial in trials if trial.counts), key=lambda trial: -(trial.score or 0.0))
    recipes: dict[int, Recipe] = {}
    for trial in ranked:
        is_new = trial.recipe not in recipes.values() and (baseline is None or trial.recipe != baseline.recipe)
        if is_new and len(recipes) < top:
            recipes[trial.number] = trial.recipe
    return recipes
