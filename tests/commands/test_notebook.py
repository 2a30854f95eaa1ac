"""Commands as a notebook's cell runs them: on a terminal of its kernel's, which shows colours but cannot be redrawn."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import GOOD

# What ipykernel puts into the environment of every `!command`.
KERNEL = {
    "TERM": "xterm-color",
    "CLICOLOR": "1",
    "CLICOLOR_FORCE": "1",
    "FORCE_COLOR": "1",
    "PAGER": "cat",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
IS_INTERACTIVE = "from cifar_tune.commands.display import progress_console as c; print(c().is_interactive, flush=True)"


def on_terminal(arguments: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """The exit code of a Python command, and all that it wrote to its terminal."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=terminal, stderr=terminal, env={**os.environ, **environment}
    ) as process:
        os.close(terminal)
        written = bytearray()
        while True:
            try:
                written += os.read(controller, 4096)
            except OSError:  # the last one that had the terminal open is gone
                break
    os.close(controller)
    return process.returncode, written.decode()


@pytest.mark.slow
def test_a_cell_shows_a_line_for_each_trial_and_the_result(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(GOOD, encoding="utf-8")
    command = ["-m", "cifar_tune", "run", str(tmp_path / "tiny.py"), "--store", str(tmp_path / "store")]
    code, shown = on_terminal(command, KERNEL)
    assert code == 0, shown
    assert "trial 0 (baseline) completed at" in shown
    assert "Best of 2 trials" in shown
    assert "\x1b[1A" not in shown, "moves the cursor up"


@pytest.mark.parametrize(
    ("term", "is_interactive"), [("xterm-256color", True), ("xterm-color", False), ("dumb", False)]
)
def test_only_a_terminal_that_can_be_drawn_over_is_interactive(term: str, is_interactive: bool) -> None:
    code, shown = on_terminal(["-c", IS_INTERACTIVE], {"TERM": term})
    assert (code, shown.strip()) == (0, str(is_interactive))


def test_a_log_that_asks_for_colours_is_not_interactive() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IS_INTERACTIVE],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TERM": "xterm-256color", "FORCE_COLOR": "1"},
    )
    assert done.stdout.strip() == "False"
