"""The short version of analysis/endurance/soak.py, with every kind of fault."""

import subprocess
import sys
from pathlib import Path

import pytest
import soak
from helpers.command_line import PATIENCE

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_a_short_soak_counts_every_trial_once_and_leaves_nothing_behind() -> None:
    command = [sys.executable, str(Path(soak.__file__)), "--trials", "80", "--one-in", "8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "2 an error of the network, 2 a loss that is no number, 2 no memory, 2 a killed worker, 2 a full disk"
        in done.stdout
    )
