"""The cores and the memory that a process may use, read from files as the kernel shows them."""

import os
from pathlib import Path

import pytest

from cifar_tune.machine import physical_memory, usable_cores, usable_memory

VERSION_2 = ("0::{path}", "30 24 0:26 / {mount} rw - cgroup2 cgroup2 rw,nsdelegate")
VERSION_1 = (
    "5:cpu,cpuacct:{path}\n4:memory:{path}\n0::/",
    "31 30 0:27 {top} {mount}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 30 0:28 {top} {mount}/memory rw - cgroup cgroup rw,memory",
)
MANY_CORES, MUCH_MEMORY = "100000000", 2**62
MiB = 2**20


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def machine(root: Path, kind: tuple[str, str], path: str, files: dict[str, str], top: str = "/") -> Path:
    """A file system whose process is in the cgroup `path`; `files` are below /sys/fs/cgroup."""
    lines, mounts = (text.format(path=path, top=top, mount="/sys/fs/cgroup") for text in kind)
    for name, content in {
        "proc/self/cgroup": lines,
        "proc/self/mountinfo": f"1 0 0:1 / / rw - ext4 x rw\n{mounts}",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n", encoding="ascii")
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n", encoding="ascii")
    return root


def version_1(quota: str, limit: str, folder: str = "") -> dict[str, str]:
    cpu, memory = f"cpu,cpuacct/{folder}cpu.cfs_", f"memory/{folder}memory."
    return {f"{cpu}quota_us": quota, f"{cpu}period_us": "100000", f"{memory}limit_in_bytes": limit}


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("max 100000", 8), (f"{MANY_CORES} 100000", 8)],
)
def test_a_quota_of_version_2_counts_in_whole_cores_and_as_one_at_least(tmp_path: Path, quota: str, cores: int) -> None:
    root = machine(tmp_path, VERSION_2, "/", {"cpu.max": quota, "memory.max": "max"})
    assert usable_cores(root) == cores
    assert usable_memory(root) == physical_memory()


@pytest.mark.parametrize(("quota", "cores"), [("300000", 3), ("50000", 1), ("-1", 8)])
def test_a_quota_of_version_1_counts_too(tmp_path: Path, quota: str, cores: int) -> None:
    root = machine(tmp_path, VERSION_1, "/", version_1(quota, str(512 * MiB)))
    assert (usable_cores(root), usable_memory(root)) == (cores, 512 * MiB)


def test_no_limit_of_version_1_is_a_huge_number(tmp_path: Path) -> None:
    root = machine(tmp_path, VERSION_1, "/", version_1("-1", str(MUCH_MEMORY)))
    assert usable_memory(root) == physical_memory()


def test_the_lowest_limit_of_a_cgroup_and_of_those_around_it_holds(tmp_path: Path) -> None:
    files = {
        "batch/cpu.max": "300000 100000",
        "batch/memory.max": "max",
        "batch/job/cpu.max": "max 100000",
        "batch/job/memory.max": str(300 * MiB),
        "other/cpu.max": "100000 100000",
        "other/memory.max": str(100 * MiB),
    }
    root = machine(tmp_path, VERSION_2, "/batch/job", files)
    assert (usable_cores(root), usable_memory(root)) == (3, 300 * MiB)
    nested = version_1("-1", str(MUCH_MEMORY)) | version_1("200000", str(200 * MiB), "job/")
    root = machine(tmp_path / "1", VERSION_1, "/job", nested)
    assert (usable_cores(root), usable_memory(root)) == (2, 200 * MiB)


def test_in_a_container_of_version_1_the_mount_shows_its_cgroup_alone(tmp_path: Path) -> None:
    root = machine(tmp_path, VERSION_1, "/docker/abc", version_1("200000", str(64 * MiB)), top="/docker/abc")
    assert (usable_cores(root), usable_memory(root)) == (2, 64 * MiB)


@pytest.mark.parametrize("path", ["/../other", "/elsewhere"])
def test_a_cgroup_outside_what_the_mount_shows_is_limited_by_what_it_shows(tmp_path: Path, path: str) -> None:
    root = machine(tmp_path, VERSION_2, path, {"cpu.max": "200000 100000"})
    assert usable_cores(root) == 2


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    root = machine(tmp_path, VERSION_2, "/", {"cpu.max": "200000 100000"})
    assert usable_cores(root) == 1


def test_without_cgroups_or_with_files_of_another_form_nothing_limits(tmp_path: Path) -> None:
    assert (usable_cores(tmp_path), usable_memory(tmp_path)) == (8, physical_memory())
    root = machine(tmp_path, ("soup", "soup\n - cgroup2"), "/", {"cpu.max": "soup", "memory.max": ""})
    assert (usable_cores(root), usable_memory(root)) == (8, physical_memory())
