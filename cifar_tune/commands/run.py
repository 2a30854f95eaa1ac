"""`cifar-tune run`: start, resume or continue a search, and print its result.

`run --plan` is plan.py's, `run --debug` debug.py's.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from cifar_tune.commands.display import progress_console
from cifar_tune.commands.publishing import Publisher, is_published, publishing
from cifar_tune.commands.session import (
    EXIT_FAILED,
    Ending,
    TrainingOptions,
    explain_ending,
    interruptible,
    kept_if_started,
    opened_session,
)
from cifar_tune.commands.trial_files import BestWeights
from cifar_tune.errors import UserError
from cifar_tune.evaluation.confirmation import read_confirmations
from cifar_tune.report.findings import Findings
from cifar_tune.report.leaderboard import leaderboard
from cifar_tune.report.sentences import describe_search
from cifar_tune.report.text import as_table, output_console
from cifar_tune.search.extend import check_extends, extend
from cifar_tune.search.forecast import WORTH
from cifar_tune.search.identity import forget_unstarted, open_record
from cifar_tune.search.limits import check_limits
from cifar_tune.search.record import Record
from cifar_tune.search.space import NUM_RANGE_DRAWS, Space
from cifar_tune.store import WEIGHTS, Store, check_name, open_store
from cifar_tune.trials.ranking import baseline_score, best_trial, best_trials
from cifar_tune.trials.trial import Trial

NUM_ROWS_SHOWN = 10


@dataclass(frozen=True)
class RunOptions:
    """The flags of `run`. `extends` is the name of an older search; None stands for a flag that was not given."""

    training: TrainingOptions
    name: str | None = None
    num_trials: int | None = None
    seed: int = 0
    extends: str | None = None
    retry_failed: bool = False
    until_converged: bool = False

    def refuse_all_but(self, reason: str, *allowed: str) -> None:
        """Raise a UserError if any of these flags was given but the allowed ones, rather than ignore it."""
        values = {
            "--name": self.name,
            "--num-trials": self.num_trials,
            "--time-budget": self.training.time_budget,
            "--cpus-per-trial": self.training.cpus_per_trial,
            "--max-concurrent": self.training.max_concurrent,
            "--seed": self.seed or None,
            "--address": self.training.address,
            "--extend": self.extends,
            "--retry-failed": self.retry_failed or None,
            "--until-converged": self.until_converged or None,
        }
        for flag, value in values.items():
            if value is not None and flag not in allowed:
                raise UserError(f"{reason} and takes no {flag}; leave it out.")


def run_search(space: Space, options: RunOptions) -> int:
    """Start, resume or continue the search, or show the result of a complete one. Returns the exit code."""
    if options.until_converged and space.search.sampler != "forecast":
        raise UserError(
            f"--until-converged needs a forecast, which the sampler {space.search.sampler} does not make; "
            f"leave one of them out."
        )
    name = check_name(space.path.stem if options.name is None else options.name)
    store, console = open_store(options.training.store), progress_console()
    num_trials = options.num_trials or space.search.num_trials
    if options.extends == name:
        raise UserError(f"--extend {name}: a search cannot extend itself; give the new one another --name.")
    with store.running(name), kept_if_started(store, partial(_open, store, name, space, options.seed)) as record:
        if options.extends:
            check_extends(record, store, options.extends)
        if options.retry_failed:
            console.print(f"Trials that failed and are tried again: {record.retry_failed()}.", highlight=False)
        record.ends_when_converged = options.until_converged
        if record.num_left(num_trials) == 0:
            console.print(_why_complete(record))
            _print_result(record, store, options.training)
            if not (record.is_shown and is_published(store, name)):
                _deliver_complete(record, store, console)
            return _exit_code(record, options.training, console)
        store.save_space(name, space.source, space.helpers)
        with publishing(store, name, record, console) as publisher:
            return _search(record, store, num_trials, options, console, publisher)


def _search(
    record: Record, store: Store, num_trials: int, options: RunOptions, console: Console, publisher: Publisher
) -> int:
    """Train what is left, print the result, and only then publish it. Returns the exit code."""
    publisher.start()
    ending = _train(record, store, num_trials, options, console, publisher)
    code = explain_ending(ending, console)
    if ending == "interrupted":
        publisher.deliver_shortly()
        return code
    if record.is_exhausted or record.is_converged:
        console.print(_why_complete(record), highlight=False)
    _print_result(record, store, options.training)
    publisher.deliver()
    return _exit_code(record, options.training, console) if ending == "complete" else code


def _deliver_complete(record: Record, store: Store, console: Console) -> None:
    """Deliver what an earlier command did not."""
    with publishing(store, record.name, record, console) as publisher:
        if not record.is_shown:
            publisher.resume()
        publisher.deliver()


def _open(store: Store, name: str, space: Space, seed: int) -> Record:
    forget_unstarted(store, name)
    return open_record(store, name, space, seed)


@interruptible
def _train(
    record: Record, store: Store, num_trials: int, options: RunOptions, console: Console, publisher: Publisher
) -> Ending:
    space = record.space
    check_limits(space)
    recipes = [*space.baselines, *space.draw_recipes(NUM_RANGE_DRAWS)]
    with opened_session(record, num_trials, store, recipes, options.training, console, publisher) as session:
        if options.extends:
            extension = extend(record, store, options.extends)
            console.print(f"{extension} fit the new space; the search learns from them.", highlight=False)
        return session.train(keeps="weights", keeper=BestWeights)


def _why_complete(record: Record) -> str:
    if record.is_exhausted and record.crashes.rules:
        return f"{record.name} is complete: {record.num_started} were tried, and all recipes left are like failed ones."
    if record.is_exhausted:
        return f"{record.name} is complete: its space has no recipe left to try, {record.num_started} were tried."
    if record.is_converged:
        return (
            f"{record.name} is complete: no recipe is expected to gain {100 * WORTH:g} points more, "
            f"{record.num_started} were tried; leave out --until-converged to go on."
        )
    return f"{record.name} is complete; continue it with --num-trials above {record.num_started}."


def _exit_code(record: Record, options: TrainingOptions, console: Console) -> int:
    """The exit code of a complete search; without a completed baseline it has failed, which is printed."""
    if baseline_score(record.trials()) is not None:
        return 0
    advice = f"find out why with `{options.command('report', record.name, '--trial', '0')}`"
    console.print(f"The baseline did not complete, so there is no gain to report; {advice}.", style="red")
    return EXIT_FAILED


def _print_result(record: Record, store: Store, options: TrainingOptions) -> None:
    """Print the top of the leaderboard, the findings, the kept weights, and commands that show more, on stdout."""
    trials, confirmations = record.trials(), read_confirmations(store, [record.name])
    out = output_console(sys.stdout)
    out.print(as_table(leaderboard({record.name: trials}, confirmations), record.name, out.width, limit=NUM_ROWS_SHOWN))
    out.print()
    extensions = {record.name: record.extension} if record.extension else {}
    for sentence in describe_search(Findings({record.name: trials}, extensions, confirmations), record.name):
        out.print(sentence, highlight=False, markup=False)
    if record.expected_gain is not None:
        out.print(f"Another training is expected to gain {100 * record.expected_gain:.2f} points.", highlight=False)
    page = ("--format", "html", "--output", "report.html")
    for line in (
        *_kept_weights(trials, store),
        f"\nAll trials:   {options.command('report', record.name)}",
        f"As one page:  {options.command('report', record.name, *page)}",
        f"In a browser: {options.command('ui')}",
    ):
        out.print(line, highlight=False, soft_wrap=True)


def _kept_weights(trials: Sequence[Trial], store: Store) -> Iterator[str]:
    """Where the weights of the best trial are, and those of the other trials on the Pareto front."""
    best = best_trial(trials)
    if best is not None:
        yield f"Weights of trial {best.number}: {store.trial(best.search, best.number) / WEIGHTS}"
    others = [trial for trial in best_trials(trials) if trial != best]
    if others:
        folders = ", ".join(f"{trial.number:05d}" for trial in others)
        yield f"Weights of the other trials on the Pareto front: in the folders {folders} beside it"
