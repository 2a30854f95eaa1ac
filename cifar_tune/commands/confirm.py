"""`cifar-tune confirm`: train the finalists and the baseline again with fresh seeds, and judge the gains.

The statistics are in evaluation/; this is the command and its table.
"""

import sys
from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_tune.commands.display import progress_console
from cifar_tune.commands.publishing import Publisher, is_published, publishing
from cifar_tune.commands.reruns import OpenReruns, RerunOptions, completed_baseline, opened_reruns, train_reruns
from cifar_tune.commands.session import (
    EXIT_FAILED,
    Ending,
    TrainingOptions,
    explain_ending,
    interruptible,
)
from cifar_tune.errors import UserError
from cifar_tune.evaluation.confirmation import METHOD, Confirmation, read_confirmation
from cifar_tune.evaluation.reruns import Design, fresh_seeds
from cifar_tune.report.sentences import describe_gain
from cifar_tune.report.text import output_console
from cifar_tune.store import Store, open_store
from cifar_tune.trials.ranking import finalists
from cifar_tune.trials.reading import read_record
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_percent, format_percent_range, format_points, score_title


def confirm_search(search: str, options: RerunOptions) -> int:
    """Start or resume the confirmation, or show one that is complete. Returns the exit code."""
    store, console = open_store(options.training.store), progress_console()
    (trials,) = read_record(store, [search]).values()
    new_design = partial(_new_design, store, search, trials, options)
    with (
        opened_reruns(store, search, "confirm", options, new_design) as reruns,
        publishing(store, search, reruns.record, console) as publisher,
    ):
        if reruns.record.num_left(reruns.design.num_runs):
            publisher.start()
            ending = _train(reruns, options.training, console, publisher)
            if ending != "complete":
                publisher.deliver_shortly()
                return explain_ending(ending, console)
        code = _print_result(store, search, reruns, trials, options.training)
        if not reruns.record.is_shown:
            publisher.resume()
        if not is_published(store, search):
            publisher.deliver()
    return code


@interruptible
def _train(reruns: OpenReruns, options: TrainingOptions, console: Console, publisher: Publisher) -> Ending:
    return train_reruns(reruns, options, console, publisher, keeps="hits")


def _new_design(store: Store, search: str, trials: Sequence[Trial], options: RerunOptions) -> Design:
    baseline = completed_baseline(search, trials)
    recipes = finalists(trials, options.top)
    if not recipes:
        raise UserError(f"No trial of {search} but its baseline has completed; continue it with a larger --num-trials.")
    seeds = fresh_seeds(store, search, trials, options.num_seeds)
    every = {baseline.number: baseline.recipe, **recipes}
    return Design(baseline.number, options.top, seeds, every, score=baseline.goal.score)


def newer_finalists(confirmation: Confirmation, trials: Sequence[Trial]) -> list[int]:
    """The trials that would be finalists now and were none then, because the search was continued."""
    design = confirmation.design
    return [number for number in finalists(trials, design.top) if number not in design.recipes]


def _print_result(
    store: Store, search: str, reruns: OpenReruns, trials: Sequence[Trial], options: TrainingOptions
) -> int:
    """Print the last confirmation that is complete, on stdout. Returns the exit code."""
    confirmation = read_confirmation(store, search)
    assert confirmation is not None
    out = output_console(sys.stdout)
    for part in render(confirmation, trials):
        out.print(part, highlight=False)
    newer = newer_finalists(confirmation, trials)
    if newer:
        note = f"Trial {newer[0]} has since become one of the best; --again confirms it with fresh seeds."
        out.print(f"\n{note}", highlight=False)
    out.print(f"\nIn the leaderboard: {options.command('report', search)}", highlight=False, soft_wrap=True)
    return EXIT_FAILED if reruns.design.baseline in confirmation.broken else 0


def render(confirmation: Confirmation, trials: Sequence[Trial]) -> list[Table | Text]:
    """A table with a row for each finalist and for the baseline, and the method below it."""
    by_number = {trial.number: trial for trial in trials}
    seeds = confirmation.design.seeds
    title = f"confirmation {confirmation.count}: {len(seeds)} runs each, seeds {seeds[0]} to {seeds[-1]}"
    if confirmation.design.score != "accuracy":
        title += f", scored by {score_title(confirmation.design.score)}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for header in ("trial", "search's\nscore", "mean", "95 % interval", "difference\nfrom score", "confirmed gain"):
        table.add_column(header, justify="left" if "gain" in header else "right", header_style="bold")
    for number in confirmation.design.recipes:
        score = by_number[number].score or 0.0
        if number in confirmation.broken:
            reason = f"not judged: {confirmation.broken[number]}"
            table.add_row(str(number), format_percent(score), "-", "-", "-", reason)
            continue
        estimate = confirmation.scores[number]
        is_baseline = number == confirmation.design.baseline
        table.add_row(
            str(number),
            format_percent(score),
            format_percent(estimate.mean),
            format_percent_range(estimate.low, estimate.high),
            format_points(100 * (estimate.mean - score)),
            "baseline" if is_baseline else describe_gain(confirmation.gains.get(number), confirmation.too_few),
        )
    return [table, Text(f"\n{METHOD}.", style="dim")]
