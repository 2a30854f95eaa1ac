"""`cifar-tune evaluate`: train the winner and the baseline on all training images, then open the test set once.

The test set is read in evaluation/; this is the command, its table, and what it publishes: page, export, registry.
"""

import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_tune.commands.display import progress_console
from cifar_tune.commands.publishing import PAGE, PUBLISHED, Publisher, is_published, publishing
from cifar_tune.commands.reruns import OpenReruns, RerunOptions, completed_baseline, opened_reruns, train_reruns
from cifar_tune.commands.session import Ending, TrainingOptions, explain_ending, interruptible, load_data, warn
from cifar_tune.data.datasets import Loaded
from cifar_tune.data.duplicates import warn_of_copies
from cifar_tune.data.images import OWN
from cifar_tune.errors import UserError
from cifar_tune.evaluation.confirmation import read_confirmation
from cifar_tune.evaluation.reruns import Design, fresh_seeds
from cifar_tune.evaluation.significance import MIN_OF_A_CLASS, Estimate, estimate_score
from cifar_tune.evaluation.test_set import (
    Evaluation,
    choose_winner,
    free_weights,
    open_test_set,
    read_evaluation,
    watched_epochs,
)
from cifar_tune.evaluation.test_set_log import read_openings
from cifar_tune.report.sentences import describe_openings
from cifar_tune.report.text import output_console
from cifar_tune.store import CHAMPION, Store, model_name, open_store
from cifar_tune.trials.ranking import best_trial
from cifar_tune.trials.reading import read_attributes, read_record, write_attribute
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import (
    format_count,
    format_percent,
    format_percent_range,
    format_points,
    format_points_range,
    score_title,
)

EXPORT = "export"  # in the evaluation's folder: the winner as files for its users


def evaluate_search(search: str, options: RerunOptions, *, flip_averaging: bool) -> int:
    """Start or resume the evaluation, or show one that is complete. Returns the exit code."""
    store, console = open_store(options.training.store), progress_console()
    (trials,) = read_record(store, [search]).values()
    read_openings(store, search)  # raises before anything is trained if the record was altered
    new_design = partial(_new_design, store, search, trials, options, console)
    with (
        opened_reruns(store, search, "evaluate", options, new_design) as reruns,
        publishing(store, search, reruns.record, console) as publisher,
    ):
        if PUBLISHED not in read_attributes(store, reruns.record.name):
            publisher.start()
            ending = _train_and_test(reruns, options.training, console, publisher, flip_averaging=flip_averaging)
            if ending != "complete":
                publisher.deliver_shortly()
                return explain_ending(ending, console)
            write_attribute(store, reruns.record.name, PUBLISHED, True)
        else:
            _print_result(store, search, flip_averaging=flip_averaging)
        _print_addresses(store, search, reruns.record.name, options.training)
        if not reruns.record.is_shown:
            publisher.resume()
        if not is_published(store, search):
            publisher.deliver()
    return 0


@interruptible
def _train_and_test(
    reruns: OpenReruns, options: TrainingOptions, console: Console, publisher: Publisher, *, flip_averaging: bool
) -> Ending:
    """Train, open the test set, print the result, write the files. Returns "complete" only if all of it is done."""
    ending = train_reruns(reruns, options, console, publisher, keeps="weights")
    if ending == "complete":
        console.print("Opening the test set ...", style="dim")
        use_gpu = options.gpus_per_trial != 0
        test_set = open_test_set(reruns.store, reruns.search, reruns.count, options.data_dir, use_gpu=use_gpu)
        _print_result(reruns.store, reruns.search, flip_averaging=flip_averaging)
        _warn_of_copies(reruns, options, test_set, console)
        console.print("Writing the page and the export ...", style="dim")
        _write_files(reruns, test_set)
    return ending


def _warn_of_copies(reruns: OpenReruns, options: TrainingOptions, test_set: Loaded, console: Console) -> None:
    """Say whether test images of a user's own were trained on; before an evaluation they are not opened."""
    recipe = next(iter(reruns.design.recipes.values()))
    if recipe.dataset in OWN:
        data = load_data(recipe, reruns.store, options)
        warn(warn_of_copies(test_set.images, "test", data.train, data.val), console)


def _print_result(store: Store, search: str, *, flip_averaging: bool) -> None:
    """Print the scores and how often the test set was opened, on stdout."""
    evaluation = read_evaluation(store, search)
    assert evaluation is not None
    out = output_console(sys.stdout)
    for part in render(evaluation, flip_averaging=flip_averaging):
        out.print(part, highlight=False)
    out.print(f"\n{describe_openings(read_openings(store, search))}", highlight=False)


def _print_addresses(store: Store, search: str, name: str, options: TrainingOptions) -> None:
    """Print where the page, the export and the model are, on stdout."""
    out, folder = output_console(sys.stdout), store.search(name)
    for line in (
        f"Page of the evaluation: {folder / PAGE / 'index.html'}",
        f"Winner, exported to use or to search on from: {folder / EXPORT}",
        f"Winner in MLflow's model registry: models:/{model_name(search)}@{CHAMPION}",
        f"In a browser: {options.command('ui')}",
    ):
        out.print(line, highlight=False, soft_wrap=True)


def _write_files(reruns: OpenReruns, test_set: Loaded) -> None:
    """Write the page and the export. Doing it again changes nothing."""
    from cifar_tune.evaluation.export import export_winner, with_baseline
    from cifar_tune.report.evaluation_page import write_page

    store, search = reruns.store, reruns.search
    evaluation = read_evaluation(store, search)
    assert evaluation is not None
    number = evaluation.winner.number
    recipe = evaluation.design.recipes[number]
    folder = store.search(reruns.record.name)
    names = list(test_set.class_names)
    write_page(folder / PAGE, search, recipe.dataset, evaluation, test_set.images, names)
    weights = free_weights(store, search, evaluation.count)[number]
    comment = f"The winner of the search {search}, its trial {number}, is the recipe to beat."
    identity = read_attributes(store, search)["identity"]
    space = with_baseline(identity["space"], identity["settings"], recipe, comment)
    export_winner(folder / EXPORT, weights, space)


def _new_design(store: Store, search: str, trials: Sequence[Trial], options: RerunOptions, console: Console) -> Design:
    baseline = completed_baseline(search, trials)
    winner = _choose_winner(store, search, trials, console)
    candidates = {trial.number: trial for trial in (baseline, winner)}
    seeds = fresh_seeds(store, search, trials, options.num_seeds)
    recipes = {number: trial.recipe for number, trial in candidates.items()}
    watched = {number: watched_epochs(trial) for number, trial in candidates.items()}
    return Design(baseline.number, options.top, seeds, recipes, watched, baseline.goal.score)


def _choose_winner(store: Store, search: str, trials: Sequence[Trial], console: Console) -> Trial:
    """The best of the last confirmation; without one, the best trial of the search, with a warning."""
    confirmation = read_confirmation(store, search)
    if confirmation is not None:
        means = {number: score.mean for number, score in confirmation.scores.items()}
        number = choose_winner(means, confirmation.design.baseline)
        return next(trial for trial in trials if trial.number == number)
    best = best_trial(trials)
    if best is None:
        raise UserError(
            f"No trial of {search} has completed within its limits; continue it with a larger --num-trials."
        )
    warning = f"Warning: {search} is not confirmed. Its winner is the best of single runs, an optimistic choice."
    console.print(warning, style="yellow", highlight=False)
    return best


def render(evaluation: Evaluation, *, flip_averaging: bool) -> list[Table | Text]:
    """A table of the baseline and the winner, with `flip_averaging` also by the mean over mirror images."""
    num_seeds, num_images = len(evaluation.design.seeds), len(evaluation.winner.labels)
    title = f"evaluation {evaluation.count}: {num_seeds} runs each on all training images, {num_images:,} test images"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    measures = [each for score in evaluation.scores for each in (f"test\n{score_title(score)}", "95 % interval")]
    for header in ("", "trial", *measures, "gain, points"):
        table.add_column(header, justify="left" if header == "" else "right", header_style="bold")
    for averaged in (False, True) if flip_averaging else (False,):
        gain = evaluation.gain(averaged=averaged)
        gain_cell = f"{format_points(100 * gain.mean)} ({format_points_range(gain.low, gain.high)})"
        for role, outcome in (("baseline", evaluation.baseline), ("winner", evaluation.winner)):
            estimates = [estimate_score(outcome.values(score, averaged=averaged)) for score in evaluation.scores]
            table.add_row(
                role + (", mean with mirror images" if averaged else ""),
                str(outcome.number),
                *(text for each in estimates for text in _mean_with_interval(each)),
                gain_cell if role == "winner" else "",
            )
    parts: list[Table | Text] = [table]
    smallest = int(np.bincount(evaluation.winner.labels).min())
    if evaluation.design.score != "accuracy" and smallest < MIN_OF_A_CLASS:
        images = format_count(smallest, "test image")
        parts.append(Text(f"\nThe smallest class has {images}, so the intervals are too narrow; {MIN_OF_A_CLASS} do."))
    if evaluation.winner.number == evaluation.baseline.number:
        parts.append(Text("\nNo trial beat the baseline, so the baseline is the winner."))
    return parts


def _mean_with_interval(estimate: Estimate) -> tuple[str, str]:
    return format_percent(estimate.mean), format_percent_range(estimate.low, estimate.high)
