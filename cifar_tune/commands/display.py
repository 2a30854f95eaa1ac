"""What a person sees while a search runs: a live panel on a terminal, plain lines anywhere else. Always on stderr."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cifar_tune.recipe.recipe import Recipe
from cifar_tune.report.leaderboard import ORDER
from cifar_tune.report.sentences import told_state
from cifar_tune.search.cost import seconds_remaining
from cifar_tune.trials.ranking import baseline_accuracy, best_trial, gain_in_points
from cifar_tune.trials.trial import Trial
from cifar_tune.wording import format_clock

SECONDS_BETWEEN_FRAMES = 0.25
SECONDS_BETWEEN_LINES = 60.0  # of a search in which nothing ends, where there is no terminal
NOTEBOOK_TERM = "xterm-color"  # what a notebook's kernel calls the terminal that it gives to the commands of a cell


def progress_console() -> Console:
    """On stderr; interactive only where a line can be drawn over.

    A notebook's cell pretends to be a terminal and shows every frame below the one before; a CI log may ask for colours
    by FORCE_COLOR, which rich takes for a terminal too.
    """
    can_redraw = sys.stderr.isatty() and os.environ.get("TERM") != NOTEBOOK_TERM
    return Console(stderr=True, force_interactive=None if can_redraw else False)


class Display:
    """Follows a search to `num_trials` trials, `num_workers` at a time. An Observer, and a context.

    `expected_epochs` is the scheduler's; the trials to come are taken to be like the `drawn` recipes, or those seen.
    """

    def __init__(
        self,
        title: str,
        trials: Sequence[Trial],
        num_trials: int,
        num_workers: int,
        console: Console,
        expected_epochs: Callable[[Recipe], float],
        drawn: Sequence[Recipe] = (),
    ) -> None:
        self._title = title
        self._trials = {trial.number: trial for trial in trials}
        self._num_trials = max(num_trials, len(trials))
        self._num_workers = num_workers
        self._console = console
        self._expected_epochs = expected_epochs
        self._drawn = drawn
        self._start = self._last = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_interactive else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, trial: Trial) -> None:
        """Take note of a trial; say a line when it is over."""
        self._trials[trial.number] = trial
        if trial.is_over:
            self._last = time.monotonic()
            self._say(f"{self._ending(trial)}  [{self._counts()}; {self._remaining()}]")

    def tick(self) -> None:
        """Refresh what is live; without a terminal, a sign of life every minute."""
        now = time.monotonic()
        if self._live and now - self._last > SECONDS_BETWEEN_FRAMES:
            self._last = now
            self._live.update(self._panel(), refresh=True)
        elif not self._live and now - self._last > SECONDS_BETWEEN_LINES:
            self._last = now
            self._say(f"{self._counts()}; {self._num_epochs()} epochs done; {self._best()}; {self._remaining()}")

    def _say(self, line: str) -> None:
        if not self._live:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _panel(self) -> Group:
        done = sum(trial.is_over for trial in self._trials.values())
        return Group(
            Text(self._title, style="bold"),
            Padding(ProgressBar(total=max(1, self._num_trials), completed=done), (0, 20, 0, 0)),  # ends its line
            Text(f"{self._counts()} · {self._num_epochs()} epochs done"),
            Text(self._best()),
            Text(f"elapsed {format_clock(time.monotonic() - self._start)} · {self._remaining()}"),
            self._running(),
        )

    def _running(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for trial in self._trials.values():
            if trial.state == "running":
                score = f"{100 * trial.val_accuracy:.2f} %" if trial.val_accuracy is not None else "…"
                table.add_row(trial.label, f"epoch {trial.epochs}/{trial.recipe.epochs}", score)
        return table

    def _ending(self, trial: Trial) -> str:
        has_score = trial.val_accuracy is not None and trial.has_own_score
        score = f" at {100 * (trial.val_accuracy or 0):.2f} %" if has_score else ""
        gain = gain_in_points(trial, baseline_accuracy(self._trials.values()))
        against = f" ({gain:+.2f})" if gain is not None and not (trial.is_baseline or trial.is_rerun) else ""
        epochs = f"{trial.epochs} of {trial.recipe.epochs} epochs"
        return f"{trial.label} {told_state(trial)}{score}{against} after {epochs}, {trial.seconds:.1f} s"

    def _counts(self) -> str:
        states = Counter(trial.state for trial in self._trials.values())
        told = ", ".join(f"{states[state]} {state}" for state in ORDER if states[state])
        return f"{len(self._trials)} of {self._num_trials} trials: {told or 'starting workers'}"

    def _best(self) -> str:
        trials = self._trials.values()
        best, baseline = best_trial(trials), baseline_accuracy(trials)
        if any(trial.is_rerun for trial in trials):
            return "each with seeds of its own; what they say together is told in the end"
        if best is None:
            return "best: none has completed yet"
        gain = gain_in_points(best, baseline)
        against = f", {gain:+.2f} points over the baseline" if gain is not None else ""
        return f"best: {100 * (best.val_accuracy or 0):.2f} % (trial {best.number}{against})"

    def _num_epochs(self) -> int:
        return sum(trial.epochs for trial in self._trials.values())

    def _remaining(self) -> str:
        seconds = seconds_remaining(
            list(self._trials.values()), self._num_trials, self._num_workers, self._expected_epochs, self._drawn
        )
        return "remaining time not known yet" if seconds is None else f"about {format_clock(seconds)} remaining"
