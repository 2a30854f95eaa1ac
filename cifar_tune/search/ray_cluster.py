"""The Ray cluster that a command trains on: one of its own on this machine, or one that runs already."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cifar_tune.errors import FaultError, UserError
from cifar_tune.search.ray_folder import ray_folder

QUIET = {"log_to_driver": False, "logging_level": "ERROR"}
SECONDS_TO_ANSWER = 3.0  # of a cluster's port
LINES_OF_A_LOG = 20  # of each of Ray's logs that are kept where it does not start


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """A Ray cluster for the time of the block: a new one on this machine only, or the one at `address`."""
    import ray

    with ExitStack() as stack:
        if address is None:
            _start(stack.enter_context(ray_folder()))
        else:
            _connect(address)
        try:
            yield
        finally:
            ray.shutdown()


def _start(folder: Path) -> None:
    """Start Ray; where it fails, once more: on a busy machine its own limit of 30 s may be too short."""
    import ray

    for is_last in (False, True):
        try:
            # Without an address Ray would join any cluster that its temporary folder names.
            ray.init(address="local", include_dashboard=False, _temp_dir=str(folder), **QUIET)
            return
        except Exception as error:
            ray.shutdown()
            if isinstance(error, OSError) or is_last:
                error.add_note(_ends_of_logs(folder))
                raise FaultError(
                    "Ray did not start; free memory, cores or disk space, then run the same command again."
                ) from error


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
    if address != "auto":
        _check_port(address)
    try:
        ray.init(address=address, **QUIET)
    except Exception as error:
        raise _as_fault(error, address) from error


def _check_port(address: str) -> None:
    """Raise a UserError unless something listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--address {address}: write HOST:PORT, such as 10.0.0.5:6379, or auto.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError):
        raise UserError(f"There is no Ray cluster at {address}; start it, or leave out --address.") from None


def _as_fault(error: Exception, address: str) -> Exception:
    """What is missing to connect, as a sentence; each is found in what Ray says."""
    text = f"{type(error).__name__} {error} {error.__cause__}"
    if "uthentication" in text or "token" in text or "UNAUTHENTICATED" in text:
        return UserError(f"The Ray cluster at {address} asks for its token; put it into RAY_AUTH_TOKEN.")
    if "No node info" in text or "node to connect" in text:
        return UserError(
            f"This machine is no node of the Ray cluster at {address}; run `ray start --address={address}` here first."
        )
    if "ersion mismatch" in text:
        return UserError(f"The Ray cluster at {address} runs another version of Ray or Python; use the same on both.")
    return FaultError(f"The Ray cluster at {address} cannot be used; check that it runs, or leave out --address.")
