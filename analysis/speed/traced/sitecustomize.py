"""Notes what a process does while it starts: startup.py puts this folder into the path of the command that it measures.

Python imports a module of this name before anything else. Each line of the file that STARTUP_TRACE names is a list:
kind of process, its number, what begins or ends there, "begin" or "end", seconds since 1970, seconds of processor time.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PROCESSES = {  # by what is in the command line
    "default_worker.py": "worker",
    "dashboard/dashboard.py": "dashboard",
    "dashboard/agent.py": "dashboard's agent",
    "runtime_env/agent/main.py": "environments' agent",
    "monitor.py": "monitor",
}
STEP, TRIAL = "optimizer step", "train a trial"
begun: set[str] = set()  # what was timed in this process
MODULES = {  # whose import is timed
    "cifar_tune.commands.run": "import the command",
    "ray": "import ray",
    "ray.tune": "import ray.tune",
    "mlflow": "import mlflow",
    "torch": "import torch",
    "cifar_tune.search.ray_worker": "import what trains",
}
FUNCTIONS = {  # which are timed
    ("cifar_tune.search.space", "load_space"): "load the space",
    ("cifar_tune.search.identity", "open_record"): "open the record",
    ("cifar_tune.data.datasets", "load_training_data"): "load the data",
    ("cifar_tune.tracking.runs", "open_client"): "open MLflow's database",
    ("cifar_tune.commands.publishing", "Publisher.wait_for_answer"): "wait for MLflow",
    ("ray._private.worker", "init"): "start Ray (ray.init)",
    ("cifar_tune.search.ray_worker", "train_trial"): TRIAL,
    ("cifar_tune.training.inputs", "DeviceData.place"): "place the data",
    ("cifar_tune.training.loop", "Training.__init__"): "build the training",
}


def note(name: str, side: str) -> None:
    """Append a line, which is short enough to be written at once."""
    with open(os.environ["STARTUP_TRACE"], "a", encoding="utf-8") as file:  # noqa: PTH123 - before pathlib is imported
        file.write(json.dumps([KIND, os.getpid(), name, side, time.time(), time.process_time()]) + "\n")


def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the function takes
        note(name, "begin")
        begun.add(name)
        try:
            return function(*args, **kwargs)
        finally:
            note(name, "end")

    return call


def note_first_step(module: ModuleType) -> None:
    """Note the end of the first optimizer step of a trial; a worker may take another one to warm up."""

    def on_step(*_: object) -> None:
        if TRIAL in begun:
            handle.remove()
            note(STEP, "end")

    handle = module.register_optimizer_step_post_hook(on_step)


class Finder:
    """Finds the modules that are timed, or have functions that are, as Python would."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        functions = {names[1]: label for names, label in FUNCTIONS.items() if names[0] == name}
        if name not in MODULES and not functions and name != "torch.optim.optimizer":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module
        if name in MODULES:
            execute = timed(execute, MODULES[name])

        def run(module: ModuleType) -> None:
            execute(module)
            for function, label in functions.items():
                owner, _, attribute = function.rpartition(".")
                place = getattr(module, owner) if owner else module
                setattr(place, attribute, timed(getattr(place, attribute), label))
            if name == "torch.optim.optimizer":
                note_first_step(module)

        spec.loader.exec_module = run  # type: ignore[method-assign]
        return spec


if "STARTUP_TRACE" in os.environ:
    LINE = " ".join(sys.orig_argv)
    KIND = next((kind for part, kind in PROCESSES.items() if part in LINE), "command")
    note("process", "begin")
    sys.meta_path.insert(0, Finder())
