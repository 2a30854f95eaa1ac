"""Machines as they are elsewhere: other users, small disks, file systems without locks. Root makes them on this one."""

import ctypes
import errno
import gc
import os
import platform
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

GROUP = 4242  # of the users below; nobody else is in it
SYSTEM_CALLS = {"x86_64": (73, 72), "aarch64": (32, 25)}  # flock, fcntl


def as_user(user: int) -> list[str]:
    """The beginning of a command that runs as another user of GROUP, who may read everything, so that Python starts."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become other users, with setpriv of util-linux")
    caps = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", f"--reuid={user}", f"--regid={GROUP}", "--clear-groups", *caps]


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own at the folder, in memory."""
    folder.mkdir(parents=True)
    _as_root("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    try:
        assert os.path.ismount(folder)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_read_only(disk: Path) -> None:
    gc.collect()  # which closes databases that this process has left open
    _as_root("mount", "-o", "remount,ro", str(disk))


def _as_root(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no right to mount: {done.stderr.strip()}")


def fill(disk: Path) -> Path:
    """Use up all room of a small disk; the file that does it."""
    assert os.path.ismount(disk), "only a disk that a test has made is filled"
    gc.collect()  # as above
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:  # nothing of this size has room any more
                continue
    return filler


def without_locks() -> None:
    """Let this process and its children find no file system with locks: `preexec_fn` of a command.

    The kernel answers ENOLCK to flock, and to fcntl where it locks, as network drives without a lock server do.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    program = _filter(*SYSTEM_CALLS[platform.machine()])
    buffer = ctypes.create_string_buffer(program)
    descriptor = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.create_string_buffer(descriptor), 0, 0) == 0  # PR_SET_SECCOMP, with a filter


def _filter(flock: int, fcntl: int) -> bytes:
    """The seccomp program: instructions of (code, jump if true, jump if false, value)."""
    load, equal, answer = 0x20, 0x15, 0x06
    refuse, allow = 0x00050000 | errno.ENOLCK, 0x7FFF0000
    instructions: Sequence[tuple[int, int, int, int]] = (
        (load, 0, 0, 0),  # the number of the system call
        (equal, 4, 0, flock),
        (equal, 0, 4, fcntl),
        (load, 0, 0, 24),  # its second argument, the command
        (equal, 1, 0, 6),  # F_SETLK
        (equal, 0, 1, 7),  # F_SETLKW
        (answer, 0, 0, refuse),
        (answer, 0, 0, allow),
    )
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
