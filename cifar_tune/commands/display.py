"""The progress of a search on stderr: a live panel on a terminal, a line for each finished trial anywhere else."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
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
from cifar_tune.report.sentences import format_state
from cifar_tune.search.cost import Remaining
from cifar_tune.search.crashes import reason_of
from cifar_tune.trials.facts import LEFT_OUT, RANDOM_NUMBERS
from cifar_tune.trials.ranking import Leaders, gain_in_points
from cifar_tune.trials.trial import OPTUNA_STATES, Trial
from cifar_tune.wording import format_clock, format_count, format_percent, format_points, format_score, format_seconds

SECONDS_BETWEEN_FRAMES = 0.25
SECONDS_BETWEEN_LINES = 60.0  # while no trial ends, where there is no terminal
MAX_REASON = 200  # characters of an error in a line
NOTEBOOK_TERM = "xterm-color"  # the TERM that a notebook's kernel sets for the commands in a cell


def progress_console() -> Console:
    """A console on stderr, interactive only where lines can be redrawn.

    A notebook's cell claims to be a terminal but shows every frame below the last one. A CI log may set FORCE_COLOR,
    which rich takes for a terminal too.
    """
    can_redraw = sys.stderr.isatty() and os.environ.get("TERM") != NOTEBOOK_TERM
    return _Progress(stderr=True, force_interactive=None if can_redraw else False)


class _Progress(Console):
    """A console whose reader may go away, as in `2>&1 | head`: a search goes on without it."""

    def on_broken_pipe(self) -> None:
        """Print nothing more, where rich would end the process."""
        self.quiet = True
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), sys.stderr.fileno())  # or what is left in its buffer would fail at the end


class _Totals:
    """What is shown of all trials, kept up to date trial by trial: a search may have ten thousand."""

    def __init__(self, remaining: Remaining) -> None:
        self._trials: dict[int, Trial] = {}
        self._remaining = remaining
        self._running: dict[int, Trial] = {}
        self._states: Counter[str] = Counter()
        self.num_epochs = 0
        self.leaders = Leaders()
        self.has_reruns = False

    def note(self, trial: Trial) -> Trial:
        """Take in a trial's new state; returns the one before, or the same for a new trial."""
        before = self._trials.get(trial.number)
        if before is not None:
            self._states[before.state] -= 1
            self.num_epochs -= before.epochs
        self._trials[trial.number] = trial
        self._running.pop(trial.number, None)
        if trial.state == "running":
            self._running[trial.number] = trial
        self._states[trial.state] += 1
        self.num_epochs += trial.epochs
        self._remaining.note(trial)
        self.has_reruns = self.has_reruns or trial.is_rerun
        self.leaders.note(trial)
        return before or trial

    @property
    def num_trials(self) -> int:
        return len(self._trials)

    @property
    def num_done(self) -> int:
        """The number of trials that are over, or that wait and are mostly not taken up again."""
        return sum(self._states[state] for state in (*OPTUNA_STATES, "paused"))

    @property
    def running(self) -> list[Trial]:
        """The trials that run now, by number."""
        return [self._running[number] for number in sorted(self._running)]

    @property
    def counts(self) -> str:
        return ", ".join(f"{self._states[state]} {state}" for state in ORDER if self._states[state])

    @property
    def seconds_left(self) -> float | None:
        return self._remaining.seconds


class Display:
    """Shows a search of `num_trials` trials, `num_workers` at a time. An Observer, and a context manager.

    The remaining time rests on `expected_epochs`, the scheduler's expectation for a recipe. Future trials are assumed
    to be like the `drawn` recipes, or like the trials so far where there are none.
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
        self._num_trials = max(num_trials, len(trials))
        self._totals = _Totals(Remaining(self._num_trials, num_workers, expected_epochs, drawn))
        for trial in trials:
            self._totals.note(trial)
        self._num_given_up = 0  # paused trials that were pruned
        self._console = console
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
        if self._num_given_up:
            trials = format_count(self._num_given_up, "paused trial")
            self._console.print(f"Pruned without going on: {trials}.", highlight=False)

    def update(self, trial: Trial) -> None:
        """Remember the trial's new state; print a line if it left its worker, or if its random numbers are others."""
        before = self._totals.note(trial)
        if before.facts.get(RANDOM_NUMBERS) != trial.facts.get(RANDOM_NUMBERS):
            note = f"{trial.label}: its random numbers {trial.facts[RANDOM_NUMBERS]}."
            self._console.print(note, highlight=False, markup=False, soft_wrap=True)
        if before.state == "paused" and trial.state == "pruned":
            self._num_given_up += 1  # its pause was told
            return
        if trial.is_over or trial.state == "paused":
            self._last = time.monotonic()
            self._print(f"{self._ending(trial)}  [{self._counts()}; {self._remaining()}]")
            if LEFT_OUT in trial.facts:
                self._print(
                    f"Draws with {trial.facts[LEFT_OUT]} are left out now, because trials like them failed alike."
                )
        elif trial.state == "interrupted" and trial.error:
            self._print(f"{trial.label} was interrupted: {_shorten(reason_of(trial.error))}")

    def tick(self) -> None:
        """Redraw the panel; without a terminal, print a line in every minute in which no trial ends."""
        now = time.monotonic()
        if self._live and now - self._last > SECONDS_BETWEEN_FRAMES:
            self._last = now
            self._live.update(self._panel(), refresh=True)
        elif not self._live and now - self._last > SECONDS_BETWEEN_LINES:
            self._last = now
            self._print(f"{self._counts()}; {self._totals.num_epochs} epochs done; {self._best()}; {self._remaining()}")

    def _print(self, line: str) -> None:
        if not self._live:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _panel(self) -> Group:
        bar = ProgressBar(total=max(1, self._num_trials), completed=self._totals.num_done)
        return Group(
            Text(self._title, style="bold"),
            Padding(bar, (0, 20, 0, 0)),  # ends its line
            Text(f"{self._counts()} · {self._totals.num_epochs} epochs done"),
            Text(self._best()),
            Text(f"elapsed {format_clock(time.monotonic() - self._start)} · {self._remaining()}"),
            self._running(),
        )

    def _running(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for trial in self._totals.running:
            score = format_percent(trial.score) if trial.score is not None else "…"
            table.add_row(trial.label, f"epoch {trial.epochs}/{trial.recipe.epochs}", score)
        return table

    def _ending(self, trial: Trial) -> str:
        has_score = trial.score is not None and trial.has_own_score
        score = f" at {format_score(trial.goal.score, trial.score or 0)}" if has_score else ""
        gain = gain_in_points(trial, self._totals.leaders.baseline)
        points = f" ({format_points(gain)})" if gain is not None and not (trial.is_baseline or trial.is_rerun) else ""
        epochs = f"{trial.epochs} of {trial.recipe.epochs} epochs"
        ending = f"{trial.label} {format_state(trial)}{score}{points} after {epochs}, {format_seconds(trial.seconds)}"
        return f"{ending}: {_shorten(reason_of(trial.error))}" if trial.error else ending

    def _counts(self) -> str:
        return f"{self._totals.num_trials} of {self._num_trials} trials: {self._totals.counts or 'starting workers'}"

    def _best(self) -> str:
        best = self._totals.leaders.best
        if self._totals.has_reruns:
            return "the results of all seeds are compared at the end"
        if best is None:
            return "best: no trial has completed yet"
        gain = gain_in_points(best, self._totals.leaders.baseline)
        points = f", {format_points(gain)} points over the baseline" if gain is not None else ""
        return f"best: {format_score(best.goal.score, best.score or 0)} (trial {best.number}{points})"

    def _remaining(self) -> str:
        seconds = self._totals.seconds_left
        return "remaining time unknown" if seconds is None else f"about {format_clock(seconds)} remaining"


def _shorten(reason: str) -> str:
    """The beginning of a long reason."""
    return reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]} ..."
