"""What the tests know of a command that is run; the fixtures `call` and `start` of conftest.py run one."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_tune.store import Store

# A search of seconds.
GOOD = """from cifar_tune import Recipe, Search

BASELINE = Recipe(
    dataset="shapes", model={"name": "mini_resnet"}, optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "constant"}, epochs=1, batch_size=32, train_images=64,
)

def space(trial):
    return BASELINE.replace({"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)})

SEARCH = Search(num_trials=2)
"""

PATIENCE = 1200.0  # seconds to wait for what a good machine does in a tenth of them


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str


Call = Callable[..., Answer]
Start = Callable[..., subprocess.Popen[str]]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)


def by_optuna(store: Store, *command: str) -> list[dict[str, Any]]:
    """What Optuna's own command says."""
    program = Path(sys.executable).parent / "optuna"
    arguments = [*command, "--storage", store.optuna_url, "--format", "json"]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))
