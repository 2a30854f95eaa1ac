"""analysis/gpu.py on a CPU, at a size that takes seconds: every part but the CUDA graph."""

import subprocess
import sys
from pathlib import Path

import gpu
import pytest
from helpers.command_line import PATIENCE

pytestmark = pytest.mark.slow


def measure(folder: Path, *flags: str) -> str:
    """What the script prints."""
    command = [sys.executable, str(Path(gpu.__file__)), "--store", str(folder), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_speed_and_sharing_are_tables_and_a_graph_needs_a_gpu(tmp_path: Path) -> None:
    size = ["--dataset", "shapes", "--models", "mini_resnet", "--steps", "1", "--rounds", "1", "--batch-size", "4"]
    sharing = ["--at-a-time", "1", "2", "--sharing-model", "mini_resnet"]
    printed = measure(tmp_path, "--parts", "speed", "graph", "sharing", *size, *sharing)
    first_cells = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")]
    assert first_cells == ["model", "mini_resnet", "trainings at a time", "1", "2"]
    assert "Not measured: CUDA graphs need a GPU." in printed


def test_a_recipe_is_beside_what_is_published_and_a_searchs_best_beside_its_baseline(tmp_path: Path) -> None:
    size = ["dataset=shapes", "epochs=2", "batch_size=50", "model/width=0.125"]
    settings = [part for setting in size for part in ("--set", setting)]
    flags = ["--recipes", "resnet9", "--images", "500", "--trials", "2", *settings]
    printed = measure(tmp_path, "--parts", "search", "recipes", *flags)
    assert "2 trials in " in printed
    assert "the baseline: " in printed
    assert "resnet9: " in printed
    assert " s each. Published: " in printed


def test_no_time_left_is_said(tmp_path: Path) -> None:
    assert "Not measured: no time was left." in measure(tmp_path, "--parts", "search", "--minutes", "0")
