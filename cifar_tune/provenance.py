"""The provenance of a result: package versions, the machine, the commit of the space file, the command."""

import os
import platform
import shlex
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cifar_tune.machine import usable_cores, usable_memory

PACKAGES = ("cifar-tune", "torch", "torchvision", "ray", "optuna", "mlflow", "numpy", "pydantic")


def package_versions() -> dict[str, str]:
    """The installed versions by package name, and Python's."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, str]:
    """The machine: its processor, and the cores and the memory in GiB that this process may use."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": str(usable_cores()),
        "memory": f"{usable_memory() / 2**30:.0f} GiB",
    }


def as_typed(*arguments: str) -> str:
    """A cifar-tune command as the user types it: with `uv run` if this process was started with it."""
    prefix = ["uv", "run"] if "UV_RUN_RECURSION_DEPTH" in os.environ else []
    return shlex.join([*prefix, "cifar-tune", *arguments])


def git_commit(path: Path) -> str | None:
    """The commit of the file's repository, with `-dirty` if something is uncommitted; None outside a repository."""
    folder = path.absolute().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return f"{commit}-dirty" if _git(folder, "status", "--porcelain") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
