"""The Ray cluster that a command trains on: one of its own on this machine, or one that runs already."""

import gc
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol

from cifar_tune import interrupts
from cifar_tune.errors import FaultError, UserError
from cifar_tune.machine import physical_memory, usable_cores, usable_memory
from cifar_tune.search.ray_folder import ray_folder
from cifar_tune.search.ray_node import Room, small_node, small_tune

SECONDS_BETWEEN_LOOKS = 0.05  # whether Ray has started, or a signal asks to end
SECONDS_TO_ANSWER = 3.0  # of a cluster's port
HTTP2_SETTINGS = b"\x04"  # the type of the frame
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + b"\0\0\0\0\0"
SHARE_OF_WORKERS, SHARE_OF_OBJECTS = 0.6, 0.3  # of limited memory; the second is Ray's own share of the machine's
OBJECT_BYTES = (100 * 2**20, 10**10)  # the least that Ray takes for objects, and the most that needs no /dev/shm
LINES_OF_A_LOG = 20  # of each of Ray's logs that are kept where it does not start


class Cluster(Protocol):
    """A Ray that starts."""

    def wait(self) -> None:
        """Wait until it can be used; raises what is in the way, or Interrupted."""


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """A Ray cluster for the time of the block: a new one on this machine only, or the one at `address`."""
    with starting_cluster(address) as cluster:
        cluster.wait()
        yield


@contextmanager
def starting_cluster(address: str | None, count_workers: Callable[[Room], int] | None = None) -> Iterator[Cluster]:
    """As `ray_cluster`, but the block begins at once; it waits for the cluster where it needs it.

    A new cluster starts meanwhile, with as many warm workers as `count_workers` says for this machine.
    """
    cluster = _OwnCluster(count_workers) if address is None else _OthersCluster(address)
    try:
        yield cluster
    finally:
        with interrupts.held():
            cluster.close()


class _OwnCluster:
    """Ray in a thread of its own from its start to its end, because its processes die with the thread that starts them.

    Signals interrupt the main thread only, so none can cut Ray's start or its import in two.
    """

    def __init__(self, count_workers: Callable[[Room], int] | None) -> None:
        self._count_workers = count_workers
        self._has_started, self._is_to_end = Event(), Event()
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it has started."""
        while not self._has_started.wait(SECONDS_BETWEEN_LOOKS):
            interrupts.raise_if_requested()
        interrupts.raise_if_requested()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Shut it down."""
        self._is_to_end.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with ray_folder() as folder:
                try:
                    self._start(folder)
                    with small_tune():
                        self._has_started.set()
                        self._is_to_end.wait()
                finally:
                    _shut_down()
        except BaseException as error:
            self._error = error
        finally:
            self._has_started.set()

    def _start(self, folder: Path) -> None:
        """Start Ray; where it fails, once more and whole: on a busy machine its own limit of 30 s may be too short."""
        import ray

        ways: list[AbstractContextManager[dict[str, Any]]] = [small_node(self._count_workers), nullcontext({})]
        for is_last, way in enumerate(ways):
            try:
                with way as more:
                    # Without an address Ray would join any cluster that its temporary folder names.
                    arguments = {**_options(), **_limits(), **more, "_temp_dir": str(folder)}
                    ray.init(address="local", include_dashboard=False, **arguments)
                _keep_off_stdout()
                return
            except Exception as error:
                _shut_down()
                if self._is_to_end.is_set():
                    return
                error.add_note(_ends_of_logs(folder))
                if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno is not None):
                    raise  # of the disk, which no second try mends
                if is_last:
                    raise FaultError(
                        "Ray did not start; free memory, cores or disk space, then run the same command again."
                    ) from error


class _OthersCluster:
    """A cluster that runs already, which is joined when it is waited for."""

    def __init__(self, address: str) -> None:
        self._address = address

    def wait(self) -> None:
        """Join it."""
        try:
            _connect(self._address)
        except SystemExit as error:  # Ray's handler of SIGTERM
            raise interrupts.Interrupted from error
        interrupts.reinstall()  # Ray has its own handler of SIGTERM
        _keep_off_stdout()
        interrupts.raise_if_requested()

    def close(self) -> None:
        """Leave it."""
        _shut_down()


def _shut_down() -> None:
    """Shut Ray down, once nothing is left that holds what is in it, in rings of objects of Tune's.

    Another thread may collect such a ring at any moment, and while Ray shuts down this ends the process.
    """
    import ray

    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def _options() -> dict[str, Any]:
    """How every Ray is joined: quietly, and so that files of the current folder shadow no package in its workers.

    Ray puts that folder first in its workers' search path, except for a job that is marked as a client's.
    """
    from ray.job_config import JobConfig

    return {"log_to_driver": False, "logging_level": "ERROR", "job_config": JobConfig(_client_job=True)}


def _keep_off_stdout() -> None:
    """Keep what Ray prints of its workers' errors off stdout, which no setting does; the record has them."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *args, **kwargs: None


def _limits() -> dict[str, int]:
    """What a Ray on this machine may use, because Ray sees few of the limits that hold for this process."""
    limits = {"num_cpus": usable_cores()}
    memory = usable_memory()
    if memory < physical_memory():
        least, most = OBJECT_BYTES
        limits["object_store_memory"] = max(least, min(int(memory * SHARE_OF_OBJECTS), most))
        limits["_memory"] = int(memory * SHARE_OF_WORKERS)
    return limits


def _ends_of_logs(folder: Path) -> str:
    """The last lines of Ray's logs of its start, which are removed with the folder."""
    ends = []
    for log in sorted(folder.glob("session_*/logs/*")):
        if log.suffix in (".err", ".out", ".log") and log.stat().st_size:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES_OF_A_LOG:]
            ends.append("\n".join([f"{log.name}:", *lines]))
    return "\n\n".join(ends)


def _connect(address: str) -> None:
    import ray

    if "://" in address:
        raise UserError(f"--address {address}: give HOST:PORT of a Ray cluster that this machine belongs to, or auto.")
    with _without_lines_of_ray():
        try:
            ray.init(address=_present(address), **_options())
        except UserError:
            raise
        except Exception as error:
            raise _as_fault(error, address) from error


def _present(address: str) -> str:
    """HOST:PORT of the cluster, or of the one that `auto` means, if this machine is a node of it; a UserError if not.

    Asked before joining, because Ray itself would wait for minutes.
    """
    from ray._private import services, utils

    if address != "auto" and not re.fullmatch(r".+:\d{1,5}", address):
        raise UserError(f"--address {address}: write HOST:PORT, such as 10.0.0.5:6379, or auto.")
    joined = services.find_gcs_addresses()  # of the Ray processes on this machine
    candidates = [address]
    if address == "auto":
        started = [os.environ.get("RAY_ADDRESS"), utils.read_ray_address()]  # the latter by `ray start`
        others = [each for each in sorted(joined) if not each.startswith("127.")]  # those belong to a command like this
        candidates = [*filter(None, started), *others]
    present = [each for each in candidates if _answers(each)]
    if not present:
        place = "on this machine" if address == "auto" else f"at {address}"
        raise UserError(f"There is no Ray cluster {place}; start it, or leave out --address.")
    port = present[0].rpartition(":")[2]  # not the host, which has several names
    if port not in {each.rpartition(":")[2] for each in joined}:
        raise UserError(
            f"This machine is no node of the Ray cluster at {address}; run `ray start --address={address}` here first."
        )
    return present[0]


def _answers(address: str) -> bool:
    """Whether a gRPC server, as Ray's are, listens at HOST:PORT: it answers HTTP/2 with its settings."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER) as connection:
            connection.sendall(HTTP2_PREFACE)
            return connection.recv(9)[3:4] == HTTP2_SETTINGS
    except (OSError, OverflowError):
        return False


@contextmanager
def _without_lines_of_ray() -> Iterator[None]:
    """Silence what Ray's own core prints on stderr within the block: a line for each time it was refused."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _as_fault(error: Exception, address: str) -> Exception:
    """What is missing to connect, as a sentence; each is found in what Ray says."""
    text = f"{type(error).__name__} {error} {error.__cause__}"
    if "uthenticat" in text or "AuthToken" in text:
        return UserError(f"The Ray cluster at {address} asks for its token; put it into RAY_AUTH_TOKEN.")
    if "ersion mismatch" in text:
        return UserError(f"The Ray cluster at {address} runs another version of Ray or Python; use the same on both.")
    return FaultError(f"The Ray cluster at {address} cannot be used; check that it runs, or leave out --address.")
