"""The benchmark of the start: what it makes of the events that the processes note."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "analysis" / "speed" / "startup.py"

EVENTS = [
    ("command", 1, "import ray", "begin", 101.0, 0.1),
    ("command", 1, "import ray", "end", 102.0, 0.9),
    ("worker", 2, "import torch", "begin", 102.0, 0.1),
    ("worker", 3, "import torch", "begin", 102.5, 0.1),
    ("worker", 3, "import torch", "end", 104.0, 1.5),
    ("worker", 3, "optimizer step", "end", 105.0, 2.0),
    ("worker", 2, "import torch", "end", 105.5, 2.0),
    ("worker", 2, "optimizer step", "end", 107.0, 2.5),
]


def test_spans_are_those_of_the_command_and_of_the_first_worker_that_trains() -> None:
    spans = runpy.run_path(str(SCRIPT))["spans_of"](EVENTS, begun=100.0)
    assert spans["import ray"] == (1.0, 2.0)
    assert spans["worker: import torch"] == (2.5, 4.0)
    assert spans["first optimizer step"] == (0.0, 5.0)
    assert spans["a step in every worker"] == (0.0, 7.0)


def test_medians_are_in_the_order_of_their_begins_with_the_steps_last() -> None:
    rounds = [{"first optimizer step": (0.0, end), "b": (2.0, 3.0), "a": (1.0, end)} for end in (5.0, 9.0, 6.0)]
    middle = runpy.run_path(str(SCRIPT))["medians"](rounds)
    assert list(middle) == ["a", "b", "first optimizer step"]
    assert middle["a"] == (1.0, 6.0)
