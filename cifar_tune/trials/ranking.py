"""Which trials of a search are the best: the winner, the baseline that gains are counted from, the Pareto front."""

from collections.abc import Iterable, Sequence
from operator import itemgetter

from cifar_tune.recipe.recipe import Recipe
from cifar_tune.trials.goal import CostName
from cifar_tune.trials.trial import Trial


def best_baseline(trials: Iterable[Trial]) -> Trial | None:
    """The best completed baseline, which gains are counted from; the earlier of equals."""
    complete = [trial for trial in trials if trial.is_baseline and trial.is_complete]
    return max(complete, key=lambda trial: (trial.val_accuracy or 0.0, -trial.number), default=None)


def baseline_accuracy(trials: Iterable[Trial]) -> float | None:
    """Its score."""
    best = best_baseline(trials)
    return best.val_accuracy if best else None


def gain_in_points(trial: Trial, baseline: float | None) -> float | None:
    """Percentage points above the baseline; None where either has no score, or the trial was not trained to its end."""
    if baseline is None or trial.val_accuracy is None or not trial.is_complete:
        return None
    return 100 * (trial.val_accuracy - baseline)


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """The completed trial within its limits with the highest score; the earlier of equals."""
    complete = [trial for trial in trials if trial.counts]
    return max(complete, key=lambda trial: (trial.val_accuracy or 0.0, -trial.number), default=None)


def pareto_front(trials: Iterable[Trial], cost: CostName) -> list[Trial]:
    """By cost, the completed trials within their limits of which no other is both as good and as cheap; equals are."""
    known = [(trial.cost(cost), -(trial.val_accuracy or 0.0), trial) for trial in trials if trial.counts]
    ordered = sorted([(price, loss, trial) for price, loss, trial in known if price is not None], key=itemgetter(0, 1))
    front: list[Trial] = []
    last = (0.0, 1.0)
    for price, loss, trial in ordered:
        if loss < last[1] or (price, loss) == last:
            front.append(trial)
            last = (price, loss)
    return front


def best_trials(trials: Sequence[Trial]) -> list[Trial]:
    """What a search was for, and what is worth keeping of it: the best trial, or the Pareto front."""
    minimize = trials[0].goal.minimize if trials else None
    if minimize:
        return pareto_front(trials, minimize)
    best = best_trial(trials)
    return [best] if best else []


def finalists(trials: Sequence[Trial], top: int) -> dict[int, Recipe]:
    """The `top` best recipes by score that are not the baseline's, by trial number; no recipe twice."""
    baseline = best_baseline(trials)
    ranked = sorted((trial for trial in trials if trial.counts), key=lambda trial: -(trial.val_accuracy or 0.0))
    chosen: dict[int, Recipe] = {}
    for trial in ranked:
        is_new = trial.recipe not in chosen.values() and (baseline is None or trial.recipe != baseline.recipe)
        if is_new and len(chosen) < top:
            chosen[trial.number] = trial.recipe
    return chosen
