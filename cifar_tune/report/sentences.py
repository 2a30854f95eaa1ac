"""Sentences about searches, for the terminal, the page, MLflow and the command that ran them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from cifar_tune.evaluation.confirmation import Confirmation
from cifar_tune.evaluation.significance import Gain, sampling_margin
from cifar_tune.evaluation.test_set_log import Opening
from cifar_tune.recipe.recipe import Value, field_of
from cifar_tune.report.findings import Findings
from cifar_tune.report.pruning import RungFindings, any_let_through, num_top
from cifar_tune.report.timing import clock_seconds, most_at_a_time, spans
from cifar_tune.trials.facts import TAKEN_AT
from cifar_tune.trials.goal import CostName
from cifar_tune.trials.ranking import baseline_score, best_baseline, best_trial, gain_in_points, pareto_front
from cifar_tune.trials.reading import Extension
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import (
    format_cost,
    format_count,
    format_gain,
    format_hours,
    format_number,
    format_percent,
    format_points,
    format_score,
    format_setting,
)


def describe_search(findings: Findings, name: str) -> list[str]:
    """The paragraphs about one search: its outcome, what the best trial changed, what the search cost."""
    trials = findings.searches[name]
    paragraphs = [describe_outcome(findings, name), describe_difference(trials), describe_cost(trials)]
    return [paragraph for paragraph in paragraphs if paragraph]


def describe_outcome(findings: Findings, name: str) -> str:
    """The headline of one search, and how often its test set was opened if it was."""
    outcome = headline(findings.searches[name], findings.extensions.get(name), findings.confirmations.get(name))
    openings = findings.openings.get(name)
    return f"{outcome} {describe_openings(openings)}" if openings else outcome


def headline(
    trials: Sequence[Trial], extension: Extension | None = None, confirmation: Confirmation | None = None
) -> str:
    """The best trial, its gain, the verdict of fresh seeds, the Pareto front, and what the search was seeded with."""
    verdict = _describe_verdict(trials, confirmation)
    sentences = [_describe_best(trials, is_confirmed=bool(verdict)), verdict, _describe_front(trials)]
    if extension is not None:
        sentences.append(f"It was seeded with {extension}.")
    return " ".join(sentence for sentence in sentences if sentence)


def _describe_best(trials: Sequence[Trial], *, is_confirmed: bool) -> str:
    """The best trial, its gain over the baseline and, where no fresh seeds judge it, its sampling error."""
    best, baseline = best_trial(trials), baseline_score(trials)
    if best is None or best.score is None:
        return _describe_none_complete(trials)
    score = format_score(best.goal.score, best.score)
    sentence = f"Best of {_count_trials(trials)}: trial {best.number} with {score}"
    gain = gain_in_points(best, baseline)
    if gain is None or baseline is None:
        return f"{sentence}. The baseline has not completed, so there is no gain to state."
    if best.is_baseline:
        return f"{sentence}. It is the baseline; no trial beat it."
    points = f"{format_points(gain)} points over" if gain >= 0 else f"{-gain:.2f} points below"
    is_over = any(trial.over_limits for trial in trials if trial.is_baseline and trial.score == baseline)
    note = "one run each" + ("; the baseline is over a limit" if is_over else "")
    sentence = f"{sentence}, {points} the baseline's {format_percent(baseline)} ({note})."
    first = best_baseline(trials)
    error, baseline_error = best.score_error, first.score_error if first else None
    if is_confirmed or best.num_val_images is None or error is None or baseline_error is None:
        return sentence
    images = format_count(best.num_val_images, "validation image")
    margin = 100 * sampling_margin(error, baseline_error)
    return f"{sentence} Unconfirmed; the sampling error of {images} alone is up to ±{margin:.2f} points (95 %)."


def _describe_none_complete(trials: Sequence[Trial]) -> str:
    """What became of the trials of a search without a best one."""
    states = [f"{count} {state}" for state, count in Counter(format_state(trial) for trial in trials).items()]
    within = " within its limits" if any(trial.is_complete for trial in trials) else ""
    return f"No trial has completed{within}: {', '.join(states)}." if states else "No trial has completed."


def _count_trials(trials: Sequence[Trial]) -> str:
    """`12 trials (5 complete, 2 interrupted)`."""
    counts = Counter("complete" if t.is_complete else t.state for t in trials if t.is_complete or not t.is_over)
    parts = [f"{count:,} {state}" for state, count in counts.items() if count < len(trials)]
    return format_count(len(trials), "trial") + (f" ({', '.join(parts)})" if parts else "")


def describe_difference(trials: Sequence[Trial]) -> str:
    """The searched values in which the best trial differs from the baseline, with the baseline's."""
    best, baseline = best_trial(trials), best_baseline(trials)
    if best is None or baseline is None or best.is_baseline:
        return ""
    searched = {field_of(name) for name in best.params}
    before = baseline.recipe.flatten()
    changes = [
        _describe_change(name, value, before)
        for name, value in best.recipe.flatten().items()
        if name in searched and before.get(name) != value
    ]
    return f"Changed from the baseline: {', '.join(changes)}." if changes else ""


def _describe_change(name: str, value: Value, before: Mapping[str, Value]) -> str:
    """`optimizer/lr=0.00156 (was 0.001)`, with all digits where three are not enough to tell the values apart."""
    if name not in before:
        return format_setting(name, value)
    if format_number(value) == format_number(before[name]):
        return f"{name}={value} (was {before[name]})"
    return f"{format_setting(name, value)} (was {format_number(before[name])})"


def _describe_verdict(trials: Sequence[Trial], confirmation: Confirmation | None) -> str:
    """What fresh seeds say of the best trial's gain; nothing for a best trial that was no finalist."""
    best = best_trial(trials)
    if confirmation is None or best is None or best.number not in confirmation.design.finalists:
        return ""
    gain = confirmation.gains.get(best.number)
    if gain is None:
        broken = "; ".join(f"trial {number} {reason}" for number, reason in confirmation.broken.items())
        return f"Fresh seeds could not judge the gain: {confirmation.too_few or broken}."
    seeds = format_count(len(confirmation.design.seeds), "fresh seed")
    count = "" if confirmation.count == 1 else f", in confirmation {confirmation.count}"
    return f"Retrained with {seeds}: {describe_gain(gain)}{count}."


def _describe_front(trials: Sequence[Trial]) -> str:
    """Both ends of the Pareto front of a search; nothing where it minimizes no cost."""
    minimize = trials[0].goal.minimize if trials else None
    front = pareto_front(trials, minimize) if minimize else []
    if minimize is None or not front:
        return ""
    first, last = (_describe_at_cost(trial, minimize) for trial in (front[0], front[-1]))
    return (
        f"Pareto front: 1 trial with {first}."
        if len(front) == 1
        else (f"Pareto front: {len(front):,} trials from {first} to {last}.")
    )


def _describe_at_cost(trial: Trial, minimize: CostName) -> str:
    return f"{format_score(trial.goal.score, trial.score or 0)} at {format_cost(minimize, trial.cost(minimize) or 0)}"


def describe_cost(trials: Sequence[Trial]) -> str:
    """What the search took: epochs, training time, and wall-clock time where every worker recorded its times."""
    training, baseline = sum(trial.seconds for trial in trials), best_baseline(trials)
    epochs = format_count(sum(trial.epochs for trial in trials), "epoch")
    cost = f"The search took {epochs} and {format_hours(training)} of training and validation"
    if baseline is not None and baseline.seconds:
        cost += f", as much as {training / baseline.seconds:,.1f} runs of the baseline"
    recorded = spans(trials)
    if not recorded or any(trial.curve and TAKEN_AT not in trial.facts for trial in trials):
        return f"{cost}."  # an older version ran some of the trials and recorded no times
    at_a_time = most_at_a_time(recorded)
    most = "one trial" if at_a_time == 1 else f"at most {at_a_time} trials"
    return f"{cost}. Wall-clock time: {format_hours(clock_seconds(recorded))}, with {most} at a time."


def describe_openings(openings: Sequence[Opening]) -> str:
    """How often the test set was opened; every look at it makes it less of a test."""
    if not openings:
        return "The test set of this search was never opened."
    times = "once, on" if len(openings) == 1 else f"{len(openings)} times, last on"
    return f"The test set of this search was opened {times} {openings[-1].at}."


def format_state(trial: Trial) -> str:
    """The state, and whether a complete trial is over a limit, which keeps it from being the best."""
    return trial.state + (" over a limit" if trial.is_complete and trial.over_limits else "")


def describe_gain(gain: Gain | None, too_few: str | None = None) -> str:
    """`real, +1.20 points (+0.40 to +2.00)`: the verdict and the interval of a confirmed gain."""
    if gain is None:
        return f"not judged: {too_few or 'not all runs of the baseline completed'}"
    return f"{gain.verdict}, {format_gain(gain.mean, gain.low, gain.high)}"


def pruning_sentence(trials: Sequence[Trial], rungs: Sequence[RungFindings]) -> str | None:
    """What stopping trials early saved; None where none was stopped."""
    num_stopped = sum(rung.num_stopped for rung in rungs)
    if not num_stopped:
        return None
    epochs = f"{sum(rung.epochs_saved for rung in rungs):,} of {sum(trial.recipe.epochs for trial in trials):,} epochs"
    seconds = f"about {sum(rung.seconds_saved for rung in rungs):,.0f} s at each trial's mean epoch"
    return f"Pruning stopped {num_stopped:,} of {len(trials):,} trials and saved up to {epochs}, {seconds}."


def pruning_caption(trials: Sequence[Trial], rungs: Sequence[RungFindings]) -> str:
    """What the last columns of the table of rungs mean."""
    top = num_top(trials)
    best = "as the best" if top == 1 else f"among the best {top}"
    missed = (
        f" Missed: an estimate of how many stopped trials would have ended {best}, from the n that were let through. "
        "A trial that is let through is trained on although the scheduler would have stopped it."
    )
    return (
        "Rank correlation: between the scores at the rung and at the end, over the n complete trials that passed it."
        + (missed if any_let_through(rungs) else "")
    )
