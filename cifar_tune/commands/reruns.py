"""What `confirm` and `evaluate` have in common: their options, which reruns to resume or show, and the training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from rich.console import Console

from cifar_tune.commands.publishing import Publisher
from cifar_tune.commands.session import Ending, TrainingOptions, kept_if_started, opened_session
from cifar_tune.commands.trial_files import EveryResult
from cifar_tune.errors import UserError
from cifar_tune.evaluation.reruns import (
    Design,
    Kind,
    count_reruns,
    open_reruns,
    read_design,
    runs_name,
    unfinished_or_last,
)
from cifar_tune.search.record import Record
from cifar_tune.store import Keepsake, Store
from cifar_tune.trials.ranking import best_baseline
from cifar_tune.trials.trial import Trial


@dataclass(frozen=True)
class RerunOptions:
    """How many of the best trials to train again, and with how many seeds; `again` starts new reruns."""

    training: TrainingOptions
    top: int
    num_seeds: int
    again: bool


@dataclass(frozen=True)
class OpenReruns:
    """Reruns of a search that this process holds: the `count`-th of their kind."""

    store: Store
    search: str
    count: int
    design: Design
    record: Record


@contextmanager
def opened_reruns(
    store: Store, search: str, kind: Kind, options: RerunOptions, new_design: Callable[[], Design]
) -> Iterator[OpenReruns]:
    """Hold the reruns to resume or to show, or begin new ones.

    The search itself is held while they are chosen, so that no other process can continue or delete it meanwhile.
    """
    with ExitStack() as stack:
        with store.running(search):
            count, design = _choose(store, search, kind, options, new_design)
            stack.enter_context(store.running(runs_name(search, kind, count)))
            opening = partial(open_reruns, store, search, kind, count, design)
            record = stack.enter_context(kept_if_started(store, opening))
        yield OpenReruns(store, search, count, design, record)


def _choose(
    store: Store, search: str, kind: Kind, options: RerunOptions, new_design: Callable[[], Design]
) -> tuple[int, Design]:
    """The count and the design of the last reruns, or of new ones; a UserError where the last have other flags."""
    count = unfinished_or_last(store, search, kind, again=options.again)
    if count is not None:
        design = read_design(store, search, kind, count)
        if (design.top, len(design.seeds)) == (options.top, options.num_seeds):
            return count, design
        if not options.again:
            raise _other_flags_error(search, kind, design)
    return 1 + count_reruns(store, search, kind), new_design()


def _other_flags_error(search: str, kind: Kind, design: Design) -> UserError:
    if kind == "confirm":
        reruns, consequence = f"a confirmation with --top {design.top} --seeds {len(design.seeds)}", "with other seeds"
    else:
        reruns, consequence = f"an evaluation with --seeds {len(design.seeds)}", "which opens the test set again"
    return UserError(
        f"{search} has {reruns}; use the same flags to resume or show it, or --again for a new one, {consequence}."
    )


def completed_baseline(search: str, trials: Sequence[Trial]) -> Trial:
    """The best baseline, with which the reruns are compared; a UserError where none has completed."""
    baseline = best_baseline(trials)
    if baseline is None:
        raise UserError(
            f"No baseline of {search} has completed, so there is nothing to compare with; run it to its end."
        )
    return baseline


def train_reruns(
    reruns: OpenReruns, options: TrainingOptions, console: Console, publisher: Publisher, *, keeps: Keepsake
) -> Ending:
    """Train what is left of the reruns, which write their weights or their hits.

    Reruns that follow the validation of the search itself have none of their own: they train on those images too.
    """
    design, recipes = reruns.design, list(reruns.design.recipes.values())
    with opened_session(reruns.record, design.num_runs, reruns.store, recipes, options, console, publisher) as session:
        if design.watched:
            session = replace(session, data=session.data.all_for_training())
        return session.train(keeps=keeps, keeper=EveryResult)
