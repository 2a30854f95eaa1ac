"""What is said of searches in sentences: by the terminal, the page, and the command that ran them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from cifar_tune.evaluation.confirmation import Confirmation
from cifar_tune.evaluation.significance import Gain, sampling_margin
from cifar_tune.evaluation.test_set_log import Opening
from cifar_tune.recipe.recipe import Value, field_of
from cifar_tune.report.findings import Findings
from cifar_tune.report.pruning import RungFindings, num_top
from cifar_tune.report.timing import clock_seconds, most_at_a_time, spans
from cifar_tune.trials.facts import TAKEN_AT
from cifar_tune.trials.goal import CostName
from cifar_tune.trials.ranking import baseline_accuracy, best_baseline, best_trial, gain_in_points, pareto_front
from cifar_tune.trials.reading import Extension
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_cost, format_hours


def headline(
    trials: Sequence[Trial], extension: Extension | None = None, confirmation: Confirmation | None = None
) -> str:
    """What came of a search, whether its gain was confirmed, and what it was seeded with."""
    confirmed = _confirmed(trials, confirmation)
    said = [_outcome(trials, is_confirmed=bool(confirmed)), confirmed, _front(trials)]
    if extension is not None:
        said.append(f"It was seeded with {extension}.")
    return " ".join(sentence for sentence in said if sentence)


def told_search(found: Findings, name: str) -> str:
    """The headline of one of the searches, and how often its test set was opened."""
    said = headline(found.searches[name], found.extensions.get(name), found.confirmations.get(name))
    openings = found.openings.get(name)
    return said + (f" {told_openings(openings)}" if openings else "")


def told_whole(found: Findings, name: str) -> list[str]:
    """All that is said of one of the searches: what came of it, what is new in it, what it cost."""
    trials = found.searches[name]
    return [said for said in (told_search(found, name), told_difference(trials), told_cost(trials)) if said]


def _outcome(trials: Sequence[Trial], *, is_confirmed: bool) -> str:
    """The best trial, its gain, what it was gained over and how far it is to be trusted, in a sentence."""
    best, baseline = best_trial(trials), baseline_accuracy(trials)
    if best is None or best.val_accuracy is None:
        states = [f"{count} {state}" for state, count in Counter(told_state(trial) for trial in trials).items()]
        within = " within its limits" if any(trial.is_complete for trial in trials) else ""
        return f"No trial has completed{within}: {', '.join(states)}." if states else "No trial has completed."
    said = f"Best of {_counted(trials)}: trial {best.number} with {100 * best.val_accuracy:.2f} %"
    gain = gain_in_points(best, baseline)
    if gain is None or baseline is None:
        return f"{said}; the baseline has not completed, so there is no gain to state."
    if best.is_baseline:
        return f"{said}, which is the baseline: no trial beat it."
    is_over = any(trial.over_limits for trial in trials if trial.is_baseline and trial.val_accuracy == baseline)
    against = f"the baseline's {100 * baseline:.2f} %" + (", which is over a limit" if is_over else "")
    num_images = best.recipe.num_val_images
    margin = 100 * sampling_margin(best.val_accuracy, baseline, num_images)
    open_ = f", unconfirmed: the choice of the {num_images:,} images alone leaves up to ±{margin:.2f} open, at 95 %"
    told = f"{gain:+.2f} points over" if gain >= 0 else f"{-gain:.2f} points below"
    return f"{said}, {told} {against} (one run each{'' if is_confirmed else open_})."


def _counted(trials: Sequence[Trial]) -> str:
    """`12 trials (5 complete, 2 interrupted)`."""
    parts = Counter("complete" if t.is_complete else t.state for t in trials if t.is_complete or not t.is_over)
    told = [f"{count:,} {state}" for state, count in parts.items() if count < len(trials)]
    number = "1 trial" if len(trials) == 1 else f"{len(trials):,} trials"
    return f"{number} ({', '.join(told)})" if told else number


def told_difference(trials: Sequence[Trial]) -> str:
    """Which searched values the best trial has that the baseline has not, with the baseline's, in a sentence."""
    best, baseline = best_trial(trials), best_baseline(trials)
    if best is None or baseline is None or best.is_baseline:
        return ""
    searched = {field_of(name) for name in best.params}
    ours, theirs = best.recipe.flatten(), baseline.recipe.flatten()
    told = [
        _against(name, value, theirs) for name, value in ours.items() if name in searched and theirs.get(name) != value
    ]
    return f"Unlike the baseline it has {', '.join(told)}." if told else ""


def _against(name: str, value: Value, theirs: Mapping[str, Value]) -> str:
    """`optimizer/lr=0.00156 (0.001)`, in full where they look alike in short."""
    if name not in theirs:
        return f"{name}={_short(value)}"
    ours, other = _short(value), _short(theirs[name])
    return f"{name}={ours} ({other})" if ours != other else f"{name}={value} ({theirs[name]})"


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _confirmed(trials: Sequence[Trial], confirmation: Confirmation | None) -> str:
    """What fresh seeds say of the best trial's gain; nothing where none was trained with them."""
    best = best_trial(trials)
    if confirmation is None or best is None or best.number not in confirmation.design.finalists:
        return ""
    gain = confirmation.gains.get(best.number)
    if gain is None:
        broken = "; ".join(f"trial {number} {why}" for number, why in confirmation.broken.items())
        return f"It could not be judged with fresh seeds: {broken}."
    after = "" if confirmation.count == 1 else f", the search's confirmation {confirmation.count}"
    return f"Again with {len(confirmation.design.seeds)} fresh seeds: {format_gain(gain)}{after}."


def _front(trials: Sequence[Trial]) -> str:
    """From where to where the Pareto front of a search reaches, in a sentence; nothing where it minimizes no cost."""
    minimize = trials[0].goal.minimize if trials else None
    front = pareto_front(trials, minimize) if minimize else []
    if minimize is None or not front:
        return ""
    ends = [_at_cost(trial, minimize) for trial in (front[0], front[-1])]
    reach = f"1 trial with {ends[0]}" if len(front) == 1 else f"{len(front)} trials from {ends[0]} to {ends[1]}"
    return f"Pareto front: {reach}."


def _at_cost(trial: Trial, minimize: CostName) -> str:
    return f"{100 * (trial.val_accuracy or 0):.2f} % at {format_cost(minimize, trial.cost(minimize) or 0)}"


def told_cost(trials: Sequence[Trial]) -> str:
    """What finding it took, in a sentence."""
    training, baseline = sum(trial.seconds for trial in trials), best_baseline(trials)
    epochs = sum(trial.epochs for trial in trials)
    said = f"It took {epochs:,} epoch{'' if epochs == 1 else 's'}, {format_hours(training)} of training and validation"
    if baseline is not None and baseline.seconds:
        said += f", as much as {training / baseline.seconds:,.1f} runs of the baseline"
    found = spans(trials)
    if not found or any(trial.curve and TAKEN_AT not in trial.facts for trial in trials):
        return f"{said}."  # an older version ran some of them, and did not measure when
    at_a_time = most_at_a_time(found)
    most = "one trial" if at_a_time == 1 else f"at most {at_a_time} trials"
    return f"{said}; {format_hours(clock_seconds(found))} on the clock, {most} at a time."


def told_openings(openings: Sequence[Opening]) -> str:
    """How often the test set was opened, which every look at it makes less of a test."""
    times = {0: "never", 1: "once"}.get(len(openings), f"{len(openings)} times")
    last = f", last on {openings[-1].at}" if openings else ""
    return f"The test set of this search was opened {times}{last}."


def told_state(trial: Trial) -> str:
    """With what keeps a trial that was trained to its end from being the best."""
    return trial.state + (" over a limit" if trial.is_complete and trial.over_limits else "")


def format_gain(gain: Gain | None) -> str:
    """`real, +1.20 points (+0.40 to +2.00)`."""
    if gain is None:
        return "not judged: the baseline's runs did not all complete"
    return f"{gain.verdict}, {100 * gain.mean:+.2f} points ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"


def pruning_sentence(trials: Sequence[Trial], rungs: Sequence[RungFindings]) -> str | None:
    """What stopping trials early saved; None where none was stopped."""
    num_stopped = sum(rung.num_stopped for rung in rungs)
    if not num_stopped:
        return None
    saved = f"{sum(rung.epochs_saved for rung in rungs):,} of {sum(trial.recipe.epochs for trial in trials):,} epochs"
    seconds = f"about {sum(rung.seconds_saved for rung in rungs):,.0f} s by each trial's own mean epoch"
    return f"Pruning stopped {num_stopped:,} of {len(trials):,} trials and saved up to {saved}, {seconds}."


def pruning_caption(trials: Sequence[Trial]) -> str:
    """What the last two columns say."""
    top = num_top(trials)
    best = "as the best" if top == 1 else f"among the best {top}"
    return (
        "rank correlation: between the scores at the rung and at the end, of the n complete trials that went on there; "
        f"missed: an estimate of how many of the stopped would have ended {best}, from the n that were let through"
    )
