"""The road of `cifar-tune evaluate`: winner and baseline retrained on all training images, the test set once."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_tune.commands.session import Means, log_outcome, opened_reruns, tell_ending, train_reruns
from cifar_tune.data.images import CLASS_NAMES
from cifar_tune.data.images import Images
from cifar_tune.errors import UserError
from cifar_tune.evaluation.confirmation import read_confirmation
from cifar_tune.evaluation.reruns import Design, count_reruns, fresh_seeds, read_design, unfinished_or_last
from cifar_tune.evaluation.significance import estimate_accuracy
from cifar_tune.evaluation.test_set import (
    Evaluation,
    choose_winner,
    free_weights,
    open_test_set,
    read_evaluation,
    watched_epochs,
)
from cifar_tune.evaluation.test_set_log import read_openings
from cifar_tune.provenance import as_typed
from cifar_tune.report.sentences import told_openings
from cifar_tune.report.text import output_console
from cifar_tune.search.record import Record
from cifar_tune.store import Store
from cifar_tune.trials.ranking import best_baseline, best_trial
from cifar_tune.trials.reading import read_attributes, read_record, write_attribute
from cifar_tune.trials.trial import Trial

PAGE = "page"  # the folder of what it writes, in the evaluation's
EXPORT = "export"  # the winner for its users, beside it
TOLD = "told"  # of an evaluation's record: all that it writes is there, in MLflow too


@dataclass(frozen=True)
class EvaluateOptions(Means):
    """The flags of `evaluate`."""

    num_seeds: int = 5
    flip_averaging: bool = False
    again: bool = False


def evaluate_search(store: Store, search: str, options: EvaluateOptions, console: Console) -> int:
    """Start or resume the evaluation, or tell what it found if it is complete; the exit code."""
    (trials,) = read_record(store, [search]).values()
    read_openings(store, search)  # a record that was altered is told before anything is trained
    design = partial(_design, store, search, trials, options, console)
    with opened_reruns(store, search, "evaluate", design) as (count, chosen, record):
        if TOLD not in read_attributes(store, record.name):
            try:
                code = _train_and_test(record, chosen, store, search, count, options, console)
            except KeyboardInterrupt:  # before or after the training, which ends by itself
                code = tell_ending("interrupted", console)
            if code:
                return code
            write_attribute(store, record.name, TOLD, True)
            log_outcome(store, search)
    found = read_evaluation(store, search)
    assert found is not None
    out = output_console(sys.stdout)
    for part in render(found, flip_averaging=options.flip_averaging):
        out.print(part, highlight=False)
    out.print(f"\n{told_openings(read_openings(store, search))}", highlight=False)
    out.print(f"The page: {store.search(record.name) / PAGE / 'index.html'}", highlight=False, soft_wrap=True)
    exported = store.search(record.name) / EXPORT
    out.print(f"The winner, to use and to search on from: {exported}", highlight=False, soft_wrap=True)
    out.print(f"In MLflow's model registry: models:/cifar-tune-{search}@champion", highlight=False, soft_wrap=True)
    out.print(f"In a browser: {as_typed('ui', *options.where)}", highlight=False, soft_wrap=True)
    return 0


def _train_and_test(
    record: Record,
    design: Design,
    store: Store,
    search: str,
    count: int,
    options: EvaluateOptions,
    console: Console,
) -> int:
    """The exit code: 0 only if all is written that an evaluation writes."""
    ending = train_reruns(record, design, store, options, console, keeps="weights")
    if ending != "complete":
        return tell_ending(ending, console)
    console.print("Opening the test set ...", style="dim")
    images = open_test_set(store, search, count, options.data_dir, use_gpu=options.gpus_per_trial != 0)
    console.print("Writing the page, the export and the model registry ...", style="dim")
    _publish(record, store, search, images)
    return 0


def _publish(record: Record, store: Store, search: str, images: Images) -> None:
    """The page, the winner for its users, and MLflow's share; to do it again changes nothing."""
    from cifar_tune.evaluation.export import export_winner, with_baseline
    from cifar_tune.report.evaluation_page import write_page
    from cifar_tune.tracking.registry import register_winner
    from cifar_tune.tracking.runs import log_files, model_name
    from cifar_tune.training.classifier import load_classifier

    found = read_evaluation(store, search)
    assert found is not None
    number = found.winner.number
    winner = found.design.recipes[number]
    folder = store.search(record.name)
    metrics = write_page(folder / PAGE, search, winner.dataset, found, images)
    log_files(store, record.id, folder / PAGE, metrics)
    weights = free_weights(store, search, found.count)[number]
    said = f"The winner of the search {search}, its trial {number}, is the recipe to beat."
    searched = read_attributes(store, search)["identity"]
    space = with_baseline(searched["space"], searched["settings"], winner, said)
    export_winner(folder / EXPORT, weights, space)
    mean, seeds = estimate_accuracy(found.winner.hits), len(found.design.seeds)
    said = (
        f"Trial {number} of {search}: {100 * mean.mean:.2f} % of the test images ({100 * mean.low:.2f} to "
        f"{100 * mean.high:.2f}), the mean of {seeds} seeds. This network is of the first seed."
    )
    classifier, _ = load_classifier(weights)
    register_winner(store, model_name(search), record.id, classifier, CLASS_NAMES[winner.dataset], said)


def _design(
    store: Store, search: str, trials: Sequence[Trial], options: EvaluateOptions, console: Console
) -> tuple[int, Design]:
    """The last one, which the options must agree with, or a new one; and the how manieth it is."""
    count = unfinished_or_last(store, search, "evaluate", again=options.again)
    if count is not None:
        design = read_design(store, search, "evaluate", count)
        if len(design.seeds) == options.num_seeds:
            return count, design
        if not options.again:
            raise UserError(
                f"{search} has an evaluation with --seeds {len(design.seeds)}; give the same to go on with it or to "
                f"see it, or --again for a new one, which opens the test set once more."
            )
    baseline, winner = best_baseline(trials), _winner(store, search, trials, console)
    if baseline is None or winner is None:
        raise UserError(
            f"No baseline of {search} has completed, so there is nothing to compare with; run it to its end."
        )
    chosen = {trial.number: trial for trial in (baseline, winner)}
    seeds = fresh_seeds(store, search, trials, options.num_seeds)
    recipes = {number: trial.recipe for number, trial in chosen.items()}
    watched = {number: watched_epochs(trial) for number, trial in chosen.items()}
    return 1 + count_reruns(store, search, "evaluate"), Design(baseline.number, 1, seeds, recipes, watched)


def _winner(store: Store, search: str, trials: Sequence[Trial], console: Console) -> Trial | None:
    """By fresh seeds where there are any, else by the search's score alone, which is said."""
    confirmation = read_confirmation(store, search)
    if confirmation is None:
        said = "so the winner is the best by one run each, which is an optimistic choice"
        console.print(f"Warning: {search} is not confirmed, {said}.", style="yellow", highlight=False)
        return best_trial(trials)
    means = {number: found.mean for number, found in confirmation.accuracies.items()}
    number = choose_winner(means, confirmation.design.baseline)
    return next(trial for trial in trials if trial.number == number)


def render(found: Evaluation, *, flip_averaging: bool) -> list[Table | Text]:
    """A row for the winner and one for the baseline, each with its interval; averaged ones by themselves."""
    seeds = found.design.seeds
    title = (
        f"evaluation {found.count}: {len(seeds)} runs each on all training images, {len(found.winner.labels):,} test"
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for header in ("", "trial", "test\naccuracy", "95 % interval", "gain, points"):
        table.add_column(header, justify="left" if header == "" else "right", header_style="bold")
    for averaged in (False, True) if flip_averaging else (False,):
        gain = found.gain(averaged=averaged)
        told = f"{100 * gain.mean:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
        for role, tested, gained in (("baseline", found.baseline, ""), ("winner", found.winner, told)):
            accuracy = estimate_accuracy(tested.averaged_hits if averaged else tested.hits)
            table.add_row(
                role + (", mean with mirror images" if averaged else ""),
                str(tested.number),
                f"{100 * accuracy.mean:.2f} %",
                f"{100 * accuracy.low:.2f} to {100 * accuracy.high:.2f}",
                gained,
            )
    parts: list[Table | Text] = [table]
    if found.winner.number == found.baseline.number:
        parts.append(Text("\nNo trial beat the baseline, so it is the winner."))
    return parts
