"""What the tests know of a command that is run; the fixtures `call` and `start` of conftest.py run one."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str


Call = Callable[..., Answer]
Start = Callable[..., subprocess.Popen[str]]


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)
