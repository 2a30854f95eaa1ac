"""The road of `cifar-tune run`: open the record, bring the data, search, and say what came of it."""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cifar_tune.commands.session import (
    EXIT_FAILED,
    Means,
    digest_weights,
    execute,
    kept_if_started,
    load_data,
    log_outcome,
    tell_ending,
    warn_of_changed_versions,
)
from cifar_tune.errors import UserError
from cifar_tune.evaluation.confirmation import read_confirmations
from cifar_tune.provenance import as_typed
from cifar_tune.report.findings import Findings
from cifar_tune.report.leaderboard import leaderboard
from cifar_tune.report.sentences import told_whole
from cifar_tune.report.text import as_table, output_console
from cifar_tune.search.extend import check_extends, extend
from cifar_tune.search.identity import open_record
from cifar_tune.search.limits import check_limits
from cifar_tune.search.record import Record
from cifar_tune.search.resources import plan_resources, this_machine
from cifar_tune.search.space import NUM_RANGE_DRAWS, Space
from cifar_tune.store import STATE, WEIGHTS, Store
from cifar_tune.trials.ranking import baseline_accuracy, best_trial, best_trials
from cifar_tune.trials.trial import Trial

NUM_ROWS_SHOWN = 10


@dataclass(frozen=True)
class RunOptions(Means):
    """The flags of `run`; `extends` is the name of an older search."""

    num_trials: int | None = None
    seed: int = 0
    extends: str | None = None


class BestWeights:
    """Keeps the weights of the best trial, or of the Pareto front, and frees what the others left. An Observer."""

    def __init__(self, store: Store, trials: Sequence[Trial]) -> None:
        self._store = store
        self._best: list[Trial] = []
        for trial in trials:  # one that ended when the process died may have left its files
            self.update(trial)

    def update(self, trial: Trial) -> None:
        """When a trial is over, keep the folders of those that are the best now."""
        if not trial.is_over:
            return
        seen = [*self._best, trial]
        self._best = best_trials(seen)
        for each in seen:
            if each not in self._best:
                shutil.rmtree(self._folder(each), ignore_errors=True)
        if trial in self._best:
            (self._folder(trial) / STATE).unlink(missing_ok=True)

    def tick(self) -> None:
        """Nothing between two updates."""

    def _folder(self, trial: Trial) -> Path:
        return self._store.trial(trial.search, trial.number)


def run_search(space: Space, store: Store, name: str, options: RunOptions, console: Console) -> int:
    """Start, resume or continue the search, or report on it if it is complete; the exit code."""
    num_trials = options.num_trials or space.search.num_trials
    if options.extends == name:
        raise UserError(f"--extend {name}: a search cannot extend itself; give the new one another --name.")
    with store.running(name), kept_if_started(open_record(store, name, space, options.seed), store) as record:
        if options.extends:
            check_extends(record, store, options.extends)
        warn_of_changed_versions(record, console)
        if record.num_left(num_trials) == 0 and record.is_shown:
            console.print(f"{name} is complete; continue it with --num-trials above {record.num_started}.")
            _conclude(record, store, options)
            return _exit_code(record, console)
        store.save_space(name, space.source)
        try:
            check_limits(space)
            record.check_unchanged("weights", _check_weights(space, console))
            data = load_data(space.baselines[0], store, options)
            record.check_unchanged("data", data.digest)
            if options.extends:
                extension = extend(record, store, options.extends)
                console.print(f"{extension} fit the new space; the search learns from them.", highlight=False)
            ending = execute(record, store, data, num_trials, options, console, keeps="weights", keeper=BestWeights)
        except KeyboardInterrupt:  # before or after the loop, which ends by itself
            ending = "interrupted"
        code = tell_ending(ending, console)
        if ending != "interrupted":
            _conclude(record, store, options)
            log_outcome(store, name)
        return _exit_code(record, console) if ending == "complete" else code


def _check_weights(space: Space, console: Console) -> dict[str, str]:
    return digest_weights([*space.baselines, *space.draw_recipes(NUM_RANGE_DRAWS)], console)


def _exit_code(record: Record, console: Console) -> int:
    """Of a search that is over: without its baseline it has nothing to say."""
    if baseline_accuracy(record.trials()) is not None:
        return 0
    console.print("The baseline did not complete, so there is no gain to state; see its --trial 0.", style="red")
    return EXIT_FAILED


def _conclude(record: Record, store: Store, options: RunOptions) -> None:
    """The leaderboard's head, the best weights and what to type next, on stdout."""
    trials, confirmations = record.trials(), read_confirmations(store, [record.name])
    out = output_console(sys.stdout)
    out.print(as_table(leaderboard({record.name: trials}, confirmations), record.name, out.width, limit=NUM_ROWS_SHOWN))
    out.print()
    extensions = {record.name: record.extension} if record.extension else {}
    for said in told_whole(Findings({record.name: trials}, extensions, confirmations), record.name):
        out.print(said, highlight=False, markup=False)
    best = best_trial(trials)
    if best is not None:
        weights = store.trial(record.name, best.number) / WEIGHTS
        out.print(f"Its weights: {weights}", highlight=False, soft_wrap=True)
    others = [trial for trial in best_trials(trials) if trial != best]
    if others:
        numbers = ", ".join(f"{trial.number:05d}" for trial in others)
        out.print(f"Weights of the rest of the front: beside it, in {numbers}", highlight=False, soft_wrap=True)
    out.print(f"\nEvery trial:  {as_typed('report', record.name, *options.where)}", highlight=False, soft_wrap=True)
    page = as_typed("report", record.name, "--format", "html", "--output", "report.html", *options.where)
    out.print(f"As one page:  {page}", highlight=False, soft_wrap=True)
    out.print(f"In a browser: {as_typed('ui', *options.where)}", highlight=False, soft_wrap=True)


def debug_baseline(space: Space, store: Store, options: RunOptions, console: Console) -> None:
    """Train the first baseline in this process, without Ray and without a record, so that a debugger works."""
    import torch

    from cifar_tune.training.features import FeatureCache
    from cifar_tune.training.inputs import DeviceData
    from cifar_tune.training.loop import Training
    from cifar_tune.training.weights import open_weights

    recipe = space.baselines[0]
    weights = open_weights(recipe.model.weights)
    data = load_data(recipe, store, options)
    device = torch.device("cuda" if torch.cuda.is_available() and options.gpus_per_trial != 0 else "cpu")
    training = Training(recipe, DeviceData.place(data, device), weights, FeatureCache(store.features))
    console.print(f"{recipe.model.name}, {training.num_parameters:,} parameters, on {device}", highlight=False)
    for name, fact in training.facts.items():
        console.print(f"{name}: {fact}", highlight=False, markup=False)
    for m in training.fit():
        console.print(
            f"epoch {m.epoch}/{recipe.epochs}  train {m.train_loss:.4f} {100 * m.train_accuracy:.2f} %  "
            f"validation {m.val_loss:.4f} {100 * m.val_accuracy:.2f} %  lr {m.lr:.3g}  "
            f"{m.seconds:.1f} s  {m.images_per_second:,.0f} images/s",
            highlight=False,
        )


def plan_search(space: Space, store: Store, options: RunOptions, console: Console) -> None:
    """Check the space on this machine and print what its search will cost; without Ray and without a record."""
    import torch

    from cifar_tune.commands.plan import make_plan, render

    num_trials = options.num_trials or space.search.num_trials
    resources = plan_resources(
        [this_machine(torch.cuda.device_count())],
        num_trials,
        cpus_per_trial=options.cpus_per_trial,
        gpus_per_trial=options.gpus_per_trial,
        max_concurrent=options.max_concurrent,
    )
    _check_weights(space, console)
    data = load_data(space.baselines[0], store, options)
    with _progress(console) as say:
        plan = make_plan(space, data, num_trials, resources, say)
    out = output_console(sys.stdout)
    for part in render(plan, space, data, options.time_budget):
        out.print(part, highlight=False, soft_wrap=isinstance(part, Text))


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """Says what is done now: a line that changes on a terminal, a line each elsewhere."""
    if not console.is_interactive:
        yield lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    with console.status("Starting ...") as status:
        yield lambda line: status.update(Text(line))
