"""What this process may use of the machine: cores and memory by affinity and cgroups, and the room on a disk.

Containers, batch systems, systemd and `taskset` give a process less than the machine has, and most programs do not see
it. Where there are no cgroups, as on macOS, nothing limits the machine.
"""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
MIN_FREE = 2**20  # bytes on a disk that is not full


def usable_cores(root: Path = ROOT) -> int:
    """The number of cores that this process may keep busy; a quota of less than one core counts as one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min([affinity, *(_core_quota(folder) for folder in _cgroups(root))])))


def usable_memory(root: Path = ROOT) -> int:
    """The bytes of memory that this process and its children may use together."""
    return int(min([physical_memory(), *(_memory_limit(folder) for folder in _cgroups(root))]))


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room; not if nobody can tell."""
    try:
        return shutil.disk_usage(folder).free < MIN_FREE
    except OSError:
        return False


def physical_memory() -> int:
    """The bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _core_quota(folder: Path) -> float:
    """The quota of a cgroup in cores, in the files of version 2 or of version 1."""
    version_1 = [word for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us") for word in _words(folder / name)]
    for words in (_words(folder / "cpu.max"), version_1):
        if len(words) == 2 and all(word.isdecimal() for word in words):  # not `max` or -1
            return int(words[0]) / max(1, int(words[1]))
    return math.inf


def _memory_limit(folder: Path) -> float:
    """The limit of a cgroup in bytes, in the file of version 2 or of version 1."""
    words = [word for name in ("memory.max", "memory.limit_in_bytes") for word in _words(folder / name)]
    return min((int(word) for word in words if word.isdecimal()), default=math.inf)


def _cgroups(root: Path) -> Iterator[Path]:
    """The folders of the cgroups that this process is in, and of those around them: limits hold for all within."""
    paths = dict(_controllers_and_paths(root))
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        _, _, _, top, mount_point, kind, _, options = [*before.split()[:5], *after.split(), *[""] * 8][:8]
        if kind not in ("cgroup", "cgroup2"):
            continue
        for controller in options.split(",") if kind == "cgroup" else [""]:
            if controller in paths:
                yield from _from_inner_to_outer(root / mount_point.lstrip("/"), paths[controller], top)


def _controllers_and_paths(root: Path) -> Iterator[tuple[str, str]]:
    """The cgroup of this process for each controller; version 2 has one cgroup for all, without a name."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            yield controller, path


def _from_inner_to_outer(mount_point: Path, path: str, top: str) -> Iterator[Path]:
    """The folder of the cgroup `path` below the mount point, which shows the cgroup `top`, and all folders above it."""
    inner = PurePosixPath(path)
    below = inner.relative_to(top) if inner.is_relative_to(top) and ".." not in inner.parts else PurePosixPath()
    yield from (mount_point / each for each in (below, *below.parents))


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    """The lines of a file; none where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
