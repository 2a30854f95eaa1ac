"""The road of `cifar-tune confirm`: the finalists and the baseline again with fresh seeds, and what that says."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_tune.commands.session import EXIT_FAILED, Means, log_outcome, opened_reruns, tell_ending, train_reruns
from cifar_tune.errors import UserError
from cifar_tune.evaluation.confirmation import METHOD, Confirmation, read_confirmation
from cifar_tune.evaluation.reruns import Design, count_reruns, fresh_seeds, read_design, unfinished_or_last
from cifar_tune.provenance import as_typed
from cifar_tune.report.sentences import format_gain
from cifar_tune.report.text import output_console
from cifar_tune.store import Store
from cifar_tune.trials.ranking import best_baseline, finalists
from cifar_tune.trials.reading import read_record
from cifar_tune.trials.trial import Trial


@dataclass(frozen=True)
class ConfirmOptions(Means):
    """The flags of `confirm`."""

    top: int = 3
    num_seeds: int = 5
    again: bool = False


def confirm_search(store: Store, search: str, options: ConfirmOptions, console: Console) -> int:
    """Start or resume the confirmation, or tell what it found if it is complete; the exit code."""
    (trials,) = read_record(store, [search]).values()
    wanted = partial(_design, store, search, trials, options)
    with opened_reruns(store, search, "confirm", wanted) as (_, design, record):
        if record.num_left(design.num_runs) or not record.is_shown:
            try:
                ending = train_reruns(record, design, store, options, console, keeps="hits")
            except KeyboardInterrupt:  # before or after the training, which ends by itself
                ending = "interrupted"
            if ending != "complete":
                return tell_ending(ending, console)
            log_outcome(store, search)
    found = read_confirmation(store, search)
    assert found is not None
    out = output_console(sys.stdout)
    for part in render(found, trials):
        out.print(part, highlight=False)
    newer = newer_finalists(found, trials)
    if newer:
        said = f"Since then trial {newer[0]} has become one of the best; --again confirms it with fresh seeds."
        out.print(f"\n{said}", highlight=False)
    out.print(f"\nIn the leaderboard: {as_typed('report', search, *options.where)}", highlight=False, soft_wrap=True)
    return EXIT_FAILED if design.baseline in found.broken else 0


def newer_finalists(found: Confirmation, trials: Sequence[Trial]) -> list[int]:
    """The trials that would be confirmed now and were not then, because the search went on."""
    return [number for number in finalists(trials, found.design.top) if number not in found.design.recipes]


def _design(store: Store, search: str, trials: Sequence[Trial], options: ConfirmOptions) -> tuple[int, Design]:
    """The last one, which the options must agree with, or a new one; and the how manieth it is."""
    count = unfinished_or_last(store, search, "confirm", again=options.again)
    if count is not None:
        design = read_design(store, search, "confirm", count)
        if (design.top, len(design.seeds)) == (options.top, options.num_seeds):
            return count, design
        if not options.again:
            raise UserError(
                f"{search} has a confirmation with --top {design.top} --seeds {len(design.seeds)}; give the same to go "
                f"on with it or to see it, or --again for a new one: more runs would make chance findings likelier."
            )
    seeds = fresh_seeds(store, search, trials, options.num_seeds)
    return 1 + count_reruns(store, search, "confirm"), _new_design(search, trials, options, seeds)


def _new_design(search: str, trials: Sequence[Trial], options: ConfirmOptions, seeds: tuple[int, ...]) -> Design:
    baseline = best_baseline(trials)
    if baseline is None:
        raise UserError(
            f"No baseline of {search} has completed, so there is nothing to compare with; run it to its end."
        )
    chosen = finalists(trials, options.top)
    if not chosen:
        raise UserError(f"No trial of {search} but its baseline has completed; continue it with a larger --num-trials.")
    return Design(baseline.number, options.top, seeds, {baseline.number: baseline.recipe, **chosen})


def render(found: Confirmation, trials: Sequence[Trial]) -> list[Table | Text]:
    """A row for each finalist and the baseline, what could not be judged, how to read it."""
    by_number = {trial.number: trial for trial in trials}
    seeds = found.design.seeds
    title = f"confirmation {found.count}: {len(seeds)} runs each, seeds {seeds[0]} to {seeds[-1]}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for header in ("trial", "search's\nscore", "mean", "95 % interval", "against the\nscore", "confirmed gain"):
        table.add_column(header, justify="left" if "gain" in header else "right", header_style="bold")
    for number in found.design.recipes:
        score = by_number[number].val_accuracy or 0.0
        if number in found.broken:
            table.add_row(str(number), f"{100 * score:.2f} %", "-", "-", "-", f"not judged: {found.broken[number]}")
            continue
        own = found.accuracies[number]
        table.add_row(
            str(number),
            f"{100 * score:.2f} %",
            f"{100 * own.mean:.2f} %",
            f"{100 * own.low:.2f} to {100 * own.high:.2f}",
            f"{100 * (own.mean - score):+.2f}",
            "baseline" if number == found.design.baseline else format_gain(found.gains.get(number)),
        )
    return [table, Text(f"\n{METHOD}.", style="dim")]
