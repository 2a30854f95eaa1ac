"""The road of `cifar-tune confirm`: the finalists and the baseline again with fresh seeds, and what that says."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_tune.confirmation import METHOD, Confirmation, read_confirmation
from cifar_tune.errors import UserError
from cifar_tune.execution import EXIT_FAILED, Means, digest_weights, execute, load_data, tell_ending
from cifar_tune.provenance import as_typed
from cifar_tune.report import best_baseline, format_gain, output_console
from cifar_tune.search.record import read_record
from cifar_tune.search.reruns import (
    Design,
    count_reruns,
    fresh_seeds,
    open_reruns,
    read_design,
    runs_name,
)
from cifar_tune.search.trial import Trial
from cifar_tune.store import STATE, Store


@dataclass(frozen=True)
class ConfirmOptions(Means):
    """The flags of `confirm`."""

    top: int = 3
    num_seeds: int = 5
    again: bool = False


class NoState:
    """Frees the state of every rerun that is over. An Observer."""

    def __init__(self, store: Store, trials: Sequence[Trial]) -> None:
        self._store = store
        for trial in trials:  # one that ended when the process died may have left its state
            self.update(trial)

    def update(self, trial: Trial) -> None:
        """When it is over."""
        if trial.is_over:
            (self._store.trial(trial.search, trial.number) / STATE).unlink(missing_ok=True)

    def tick(self) -> None:
        """Nothing between two updates."""


def confirm_search(store: Store, search: str, options: ConfirmOptions, console: Console) -> int:
    """Start or resume the confirmation, or tell what it found if it is complete; the exit code."""
    (trials,) = read_record(store, [search]).values()
    if store.is_running(search):
        raise UserError(f"The search {search} is running in another process; confirm it when it is over.")
    count, design = _design(store, search, trials, options)
    name = runs_name(search, "confirm", count)
    with store.running(name):
        record = open_reruns(store, search, "confirm", count, design)
        try:
            recipes = list(design.recipes.values())
            record.check_unchanged("weights", digest_weights(recipes, console))
            data = load_data(recipes[0], store, options)
            record.check_unchanged("data", data.digest)
            ending = execute(record, store, data, design.num_runs, options, console, keeps="hits", keeper=NoState)
        except KeyboardInterrupt:  # before or after the loop, which ends by itself
            ending = "interrupted"
    if ending != "complete":
        return tell_ending(ending, console)
    found = read_confirmation(store, search)
    assert found is not None
    out = output_console(sys.stdout)
    for part in render(found, trials):
        out.print(part, highlight=False)
    out.print(f"\nIn the leaderboard: {as_typed('report', search, *options.where)}", highlight=False, soft_wrap=True)
    return EXIT_FAILED if design.baseline in found.broken else 0


def _design(store: Store, search: str, trials: Sequence[Trial], options: ConfirmOptions) -> tuple[int, Design]:
    """The last one, which the options must agree with, or a new one; and the how manieth it is."""
    count = count_reruns(store, search, "confirm")
    if count == 0 or options.again:
        seeds = fresh_seeds(store, search, trials, options.num_seeds)
        return count + 1, _new_design(search, trials, options, seeds)
    design = read_design(store, search, "confirm", count)
    if (design.top, len(design.seeds)) != (options.top, options.num_seeds):
        raise UserError(
            f"{search} has a confirmation with --top {design.top} --seeds {len(design.seeds)}; give the same to go on "
            f"with it or to see it, or --again for a new one: adding runs to it would make chance findings likelier."
        )
    return count, design


def _new_design(search: str, trials: Sequence[Trial], options: ConfirmOptions, seeds: tuple[int, ...]) -> Design:
    baseline = best_baseline(trials)
    if baseline is None:
        raise UserError(
            f"No baseline of {search} has completed, so there is nothing to compare with; run it to its end."
        )
    ranked = sorted((trial for trial in trials if trial.counts), key=lambda trial: -(trial.val_accuracy or 0.0))
    recipes = {baseline.number: baseline.recipe}
    for trial in ranked:
        if len(recipes) <= options.top and trial.recipe not in recipes.values():
            recipes[trial.number] = trial.recipe
    if len(recipes) == 1:
        raise UserError(f"No trial of {search} but its baseline has completed; continue it with a larger --num-trials.")
    return Design(baseline.number, options.top, seeds, recipes)


def render(found: Confirmation, trials: Sequence[Trial]) -> list[Table | Text]:
    """A row for each finalist and the baseline, what could not be judged, how to read it."""
    by_number = {trial.number: trial for trial in trials}
    seeds = found.design.seeds
    title = f"confirmation {found.count}: {len(seeds)} runs each, seeds {seeds[0]} to {seeds[-1]}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for header in ("trial", "search's\nscore", "mean", "95 % interval", "shrinkage\npoints", "gain over the\nbaseline"):
        table.add_column(header, justify="left" if "gain" in header else "right", header_style="bold")
    for number in found.design.recipes:
        score = by_number[number].val_accuracy or 0.0
        if number in found.broken:
            table.add_row(str(number), f"{100 * score:.2f} %", "-", "-", "-", f"not judged: {found.broken[number]}")
            continue
        own = found.confirmed[number]
        table.add_row(
            str(number),
            f"{100 * score:.2f} %",
            f"{100 * own.mean:.2f} %",
            f"{100 * own.low:.2f} to {100 * own.high:.2f}",
            f"{100 * (own.mean - score):+.2f}",
            "baseline" if number == found.design.baseline else format_gain(own.gain),
        )
    return [table, Text(f"\n{METHOD}.", style="dim")]
