"""The live display on a terminal and on a pipe, fed with hand-made trials."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import pytest
from helpers.made_trials import RECIPE
from rich.console import Console

from cifar_tune.commands.display import SECONDS_BETWEEN_FRAMES, Display
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.report.leaderboard import ORDER
from cifar_tune.trials.trial import State, Trial
from cifar_tune.wording import format_clock


def trial(number: int, state: State = "completed", accuracies: Sequence[float] = (0.2, 0.3, 0.4, 0.5)) -> Trial:
    """Each epoch took 10 s."""
    curve = [{"epoch": i, "val_accuracy": accuracy, "seconds": 10.0} for i, accuracy in enumerate(accuracies, start=1)]
    return Trial("tiny", number, state, RECIPE, {}, is_baseline=number == 0, curve=curve)


def whole(recipe: Recipe) -> float:
    """Expected epochs under a scheduler that stops no trial."""
    return recipe.epochs


def half(recipe: Recipe) -> float:
    """Expected epochs under a scheduler that stops the average trial half-way."""
    return recipe.epochs / 2


def on_pipe(width: int = 80) -> Console:
    return Console(file=StringIO(), width=width)


def on_terminal(width: int = 80) -> Console:
    return Console(file=StringIO(), force_terminal=True, force_interactive=True, width=width)


def printed(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def lines(*trials: Trial, num_trials: int = 4, num_workers: int = 1) -> list[str]:
    """The lines that a pipe gets for these updates."""
    console = on_pipe()
    with Display("tiny: shapes", [], num_trials, num_workers, console, whole) as display:
        for each in trials:
            display.update(each)
            display.tick()
    return printed(console).splitlines()


def panel(*trials: Trial, num_trials: int = 4, width: int = 80) -> str:
    """What a terminal shows after these updates."""
    console = on_terminal(width)
    with Display("tiny: shapes", [], num_trials, 1, console, whole) as display:
        for each in trials:
            display.update(each)
        time.sleep(SECONDS_BETWEEN_FRAMES * 1.2)
        display.tick()
    return printed(console)


def seconds_remaining(text: str) -> int:
    (clock,) = re.findall(r"about ([\d:]+) remaining", text)
    return sum(int(part) * 60**place for place, part in enumerate(reversed(clock.split(":"))))


# On a pipe


def test_a_pipe_gets_one_plain_line_for_every_trial_that_ends() -> None:
    printed_lines = lines(
        trial(0, "running", ()), trial(0, "running", (0.2,)), trial(0), trial(1, "pruned", (0.1, 0.2))
    )
    assert len(printed_lines) == 2
    assert printed_lines[0].startswith("trial 0 (baseline) completed at 50.00 % after 4 of 4 epochs, 40.0 s")
    assert printed_lines[1].startswith("trial 1 pruned at 20.00 % after 2 of 4 epochs, 20.0 s")
    assert not re.search(r"[\x00-\x1f]", "".join(printed_lines))


def test_a_paused_trial_gets_a_line_and_is_counted_when_it_is_pruned_at_the_end() -> None:
    paused = trial(1, "paused", (0.1, 0.2))
    printed_lines = lines(trial(0), paused, replace(paused, state="pruned"), trial(2))
    assert printed_lines[1].startswith("trial 1 paused at 20.00 % after 2 of 4 epochs, 20.0 s")
    assert "2 of 4 trials: 1 completed, 1 paused;" in printed_lines[1]
    assert "2 completed, 1 pruned;" in printed_lines[2]
    assert printed_lines[3:] == ["Pruned without going on: 1 paused trial."]


def test_a_line_counts_the_states_of_all_trials() -> None:
    ended: list[State] = ["completed", "completed", "pruned", "diverged", "out of memory", "failed"]
    trials = [trial(number, state) for number, state in enumerate(ended)]
    printed_lines = lines(*trials[:-1], trial(6, "running", (0.2,)), trials[-1], num_trials=9)
    assert (
        "7 of 9 trials: 2 completed, 1 pruned, 1 diverged, 1 out of memory, 1 failed, 1 running"
        in (printed_lines[-1])  # as ORDER
    )


def test_a_line_names_the_gain_over_the_baseline() -> None:
    printed_lines = lines(
        trial(0), trial(1, accuracies=[0.625]), trial(2, accuracies=[0.45]), trial(3, "pruned", [0.9])
    )
    assert "completed at 50.00 % after" in printed_lines[0]
    assert "completed at 62.50 % (+12.50) after" in printed_lines[1]
    assert "completed at 45.00 % (-5.00) after" in printed_lines[2]
    assert "pruned at 90.00 % after" in printed_lines[3]


def test_the_remaining_time_falls_as_trials_finish() -> None:
    printed_lines = lines(*(trial(number) for number in range(4)))
    assert [seconds_remaining(line) for line in printed_lines] == [120, 80, 40, 0]


def test_two_workers_need_half_the_time() -> None:
    assert [seconds_remaining(line) for line in lines(trial(0), trial(1), num_workers=2)] == [60, 40]


def test_trials_that_end_early_shorten_the_remaining_time() -> None:
    printed_lines = lines(trial(0), trial(1, "pruned", (0.1, 0.1)), num_trials=4)
    assert [seconds_remaining(line) for line in printed_lines] == [120, 67], "somewhat less than the scheduler expects"


def test_a_scheduler_shortens_the_remaining_time() -> None:
    console = on_pipe()
    with Display("tiny", [], 4, 1, console, half) as display:
        display.update(trial(0))
    assert seconds_remaining(printed(console)) == 60


def test_the_trials_to_come_are_like_those_that_were_drawn() -> None:
    console = on_pipe()
    with Display("tiny", [], 4, 1, console, whole, [RECIPE.replace({"epochs": 8})]) as display:
        display.update(trial(0))
    assert seconds_remaining(printed(console)) == 240


def test_a_trial_without_epochs_leaves_the_remaining_time_open() -> None:
    assert "remaining time unknown" in lines(trial(0, "failed", ()))[0]


def test_titles_and_lines_are_not_read_as_markup() -> None:
    console = on_pipe()
    with Display("[red]tiny", [], 1, 1, console, whole) as display:
        display.update(trial(0))
    assert "[1 of 1 trials: 1 completed" in printed(console)


# On a terminal


def test_a_terminal_shows_counts_best_gain_and_what_runs() -> None:
    shown = panel(
        trial(0), trial(1, accuracies=[0.2, 0.3, 0.4, 0.75]), trial(2, "pruned", [0.1]), trial(3, "running", [0.3])
    )
    for words in (
        "tiny: shapes",
        "4 of 4 trials: 2 completed, 1 pruned, 1 running",
        "10 epochs done",
        "best: 75.00 % (trial 1, +25.00 points over the baseline)",
        "elapsed 0:00",
        "remaining",
        "trial 3",
        "epoch 1/4",
        "30.00 %",
    ):
        assert words in shown


def test_a_terminal_names_no_gain_before_the_baseline_has_completed() -> None:
    assert "best: 75.00 % (trial 1)" in panel(trial(0, "running", [0.1]), trial(1, accuracies=[0.75]))


def test_a_terminal_says_that_nothing_has_completed() -> None:
    assert "best: no trial has completed yet" in panel(trial(0, "running", ()), trial(1, "pruned", [0.9]))


def test_a_terminal_keeps_the_panel_to_itself() -> None:
    """A line per trial would push the panel up; the leaderboard at the end says it all."""
    console = on_terminal()
    with Display("tiny", [], 2, 1, console, whole) as display:
        display.update(trial(0))
    assert "completed at" not in printed(console)


# Never a crash


@pytest.mark.parametrize(
    ("console", "num_trials"),
    [(on_pipe(), 0), (on_pipe(), 100), (on_terminal(), 0), (on_terminal(), 100), (on_terminal(20), 1)],
    ids=["pipe, 0", "pipe, 100", "terminal, 0", "terminal, 100", "narrow terminal, 1"],
)
def test_a_search_without_trials_is_displayed(console: Console, num_trials: int) -> None:
    with Display("tiny", [], num_trials, 1, console, whole) as display:
        time.sleep(SECONDS_BETWEEN_FRAMES * 1.2)
        display.tick()
    if console.is_terminal:
        text = " ".join(printed(console).split())
        assert f"0 of {num_trials} trials: starting workers" in text
        assert "best: no trial has completed yet" in text


@pytest.mark.parametrize("accuracies", [(), (0.5,)], ids=["no epochs", "one epoch"])
def test_every_state_is_displayed(accuracies: Sequence[float]) -> None:
    trials = [trial(number, state, accuracies) for number, state in enumerate(ORDER)]
    assert ", ".join(f"1 {state}" for state in ORDER) in panel(*trials, num_trials=9, width=160)
    assert len(lines(*trials)) == len(ORDER) - 2, "a trial that runs or was interrupted has not ended"


def test_a_resumed_search_counts_what_was_done_before() -> None:
    console = on_pipe()
    with Display("tiny", [trial(0), trial(1, "interrupted", (0.2,))], 3, 1, console, whole) as display:
        display.update(trial(1, "running", (0.2,)))
        display.update(replace(trial(1), search="tiny"))
    assert "2 of 3 trials: 2 completed" in printed(console)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (123, "2:03"), (3599.4, "59:59"), (3723, "1:02:03")]
)
def test_seconds_are_written_as_a_clock(seconds: float, text: str) -> None:
    assert format_clock(seconds) == text


def test_a_reader_of_the_lines_may_go_away() -> None:
    """As in `2>&1 | head`: what is shown to nobody ends no search."""
    program = """
import sys, time
from cifar_tune.commands.display import progress_console
console = progress_console()
console.print("first")
sys.stdin.readline()
for _ in range(3):
    console.print("more")
print("goes on")
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == "first\n"
        process.stderr.close()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read() == "goes on\n"
    assert process.returncode == 0
