"""A command's answer, and a small space to search. The fixtures `call` and `start` in conftest.py run commands."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_tune.errors import UserError
from cifar_tune.store import Store
from cifar_tune.trials.reading import read_record
from cifar_tune.trials.trial import Trial

# A space whose search takes seconds.
GOOD = """from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "constant"}, epochs=1, batch_size=32, train_images=64,
)

def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)})

SEARCH = Search(num_trials=2)
"""

PATIENCE = 600.0  # seconds to wait; a good machine needs a tenth of them


@dataclass(frozen=True)
class Answer:
    """The exit code of a command, and what it printed."""

    code: int
    stdout: str
    stderr: str


Call = Callable[..., Answer]
Start = Callable[..., subprocess.Popen[str]]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.3)


def trials_of(store: Store, search: str) -> list[Trial]:
    """The trials of a search so far; none before it is made."""
    try:
        return read_record(store, [search])[search]
    except UserError:
        return []


def by_optuna(store: Store, *command: str) -> list[dict[str, Any]]:
    """The answer of Optuna's own command, read as JSON."""
    program = Path(sys.executable).parent / "optuna"
    arguments = [*command, "--storage", store.optuna_url, "--format", "json"]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))
