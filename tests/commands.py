"""What the tests know of a command that was run; the fixture `call` of conftest.py runs one."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str


Call = Callable[..., Answer]
