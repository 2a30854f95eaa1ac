"""Measures the start of a search: seconds from the command to the first optimizer step, by cause.

    uv run python analysis/speed/startup.py
    uv run python analysis/speed/startup.py --against ../other-checkout --rounds 5 --json startup.json

Every round starts a search in an empty store, with as many trials as there are cores; traced/sitecustomize.py notes
what its processes do. Prints medians; with `--against`, those of another checkout, in turn, and the ratio.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from cifar_tune.machine import usable_cores

ROOT = Path(__file__).parents[2]
TRACED = Path(__file__).parent / "traced"
SPACE = ROOT / "search_spaces" / "mini_resnet.py"
SETTINGS = ("dataset=shapes", "train_images=1000", "epochs=1")
FIRST_STEP, ALL_STEPS = "first optimizer step", "a step in every worker"

Event = tuple[str, int, str, str, float, float]  # as sitecustomize.py describes a line
Spans = dict[str, tuple[float, float]]  # begin and end of each cause, in seconds after the command


def measure(checkout: Path) -> Spans:
    """The spans of one start."""
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        trace = Path(folder) / "trace"
        path = os.pathsep.join([str(TRACED), str(checkout)])
        fixed = [word for setting in SETTINGS for word in ("--set", setting)]
        command = [sys.executable, "-m", "cifar_tune", "run", str(SPACE), *fixed]
        command += ["--store", f"{folder}/store", "--num-trials", str(usable_cores())]
        environment = {**os.environ, "PYTHONPATH": path, "STARTUP_TRACE": str(trace)}
        begun = time.time()
        subprocess.run(command, env=environment, cwd=checkout, check=True, capture_output=True)
        events: list[Event] = [tuple(json.loads(line)) for line in trace.read_text(encoding="utf-8").splitlines()]
    return spans_of(events, begun)


def spans_of(events: Sequence[Event], begun: float) -> Spans:
    """The spans in the command, of Ray's own processes, and in the worker that was the first to take a step."""
    steps = {pid: at - begun for _, pid, what, _, at, _ in reversed(events) if what == "optimizer step"}
    first = min(steps, key=lambda pid: steps[pid])
    spans: Spans = {}
    for kind, pid, what, side, at, _ in events:
        if kind == "worker" and pid != first:
            continue
        name = what if kind == "command" else f"{kind}: {what}"
        begin, end = spans.get(name, (at - begun, at - begun))
        is_again = side == "begin" and name in spans  # of a second trial, or of Ray's second start
        spans[name] = (begin, end if is_again or at - begun > steps[first] else at - begun)
    return {**spans, FIRST_STEP: (0.0, steps[first]), ALL_STEPS: (0.0, max(steps.values()))}


def medians(rounds: Sequence[Spans]) -> Spans:
    """The median begin and end of each cause, in the order of their begins."""
    names = dict.fromkeys(name for spans in rounds for name in spans)
    middle = {
        name: (
            median(spans[name][0] for spans in rounds if name in spans),
            median(spans[name][1] for spans in rounds if name in spans),
        )
        for name in names
    }
    return dict(sorted(middle.items(), key=lambda item: (item[0] in (FIRST_STEP, ALL_STEPS), item[1])))


def _print(spans: Spans) -> None:
    print("| cause | begins after, s | ends after, s | takes, s |\n|---|---|---|---|")
    for name, (begin, end) in spans.items():
        print(f"| {name} | {begin:.2f} | {end:.2f} | {end - begin:.2f} |")


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout of cifar-tune")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    checkouts = {"this": ROOT, **({"other": arguments.against.absolute()} if arguments.against else {})}
    rounds: dict[str, list[Spans]] = {name: [] for name in checkouts}
    for _ in range(arguments.rounds):
        for name, checkout in checkouts.items():
            spans = measure(checkout)
            rounds[name].append(spans)
            print(f"{name}: {spans[FIRST_STEP][1]:.2f} s", file=sys.stderr)
    figures = {name: medians(each) for name, each in rounds.items()}
    for name, spans in figures.items():
        print(f"\n{name}: {checkouts[name]}, median of {arguments.rounds}\n")
        _print(spans)
    for row in (FIRST_STEP, ALL_STEPS) if "other" in figures else ():
        print(f"\n{row}, this to other: {figures['this'][row][1] / figures['other'][row][1]:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"medians": figures, "rounds": rounds}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
