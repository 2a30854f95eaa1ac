"""The benchmarks in analysis/speed/: what they measure and how they compare, at a size that takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from speed.loop import RECIPES, Bench, compare, summarize

from cifar_tune.data.images import TrainingData
from cifar_tune.recipe.recipe import Recipe

LOOP = Path(__file__).parents[2] / "analysis" / "speed" / "loop.py"


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_every_loop_of_every_model_trains(recipe: Recipe, shapes: TrainingData) -> None:
    bench = Bench(recipe.replace({"batch_size": 4}), shapes, 1, torch.device("cpu"), num_val=4)
    rates = bench.measure("bare") | bench.measure("fit") | bench.measure("tutorial")
    assert rates.keys() == {"bare", "fit", "tutorial", "bare forward", "validation"}
    assert min(rates.values()) > 0


def test_a_ratio_is_that_of_the_same_round_and_the_first_round_does_not_count() -> None:
    """A machine that is ten times slower in one round changes both sides of it."""
    bare, fit = iter([1.0, 100.0, 10.0, 100.0]), iter([1.0, 90.0, 9.0, 80.0])
    rates = compare(3, [("", lambda: {"bare": next(bare)}), ("", lambda: {"fit": next(fit)})])
    assert rates == {"bare": [100.0, 10.0, 100.0], "fit": [90.0, 9.0, 80.0]}
    assert summarize(rates) == {"bare": 100.0, "fit": 80.0, "fit/bare": pytest.approx(0.9)}


@pytest.mark.slow
def test_the_loop_is_compared_with_another_checkout_in_a_table_and_a_file(tmp_path: Path) -> None:
    file, checkout = tmp_path / "loop.json", LOOP.parents[2]
    flags = ["--models", "mini_resnet", "--rounds", "1", "--steps", "1", "--against", checkout, "--json", file]
    command = [sys.executable, str(LOOP), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    (row,) = json.loads(file.read_text()).values()
    assert row["fit/other fit"] > 0
    head, _, body = done.stdout.splitlines()
    assert head.count("|") == body.count("|") == len(row) + 2
    assert body.startswith("| mini_resnet |")
