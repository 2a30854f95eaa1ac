"""The MLflow UI on a store: `cifar-tune ui`."""

import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NoReturn

from cifar_tune.errors import UserError
from cifar_tune.store import Store
from cifar_tune.tracking.address import is_server, tracking_url

EVERY_ADDRESS = ("0.0.0.0", "::")
NO_EXECUTORS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # a dozen processes for jobs of language models
ADDRESS_OF_INTERFACE = 0x8915  # Linux's SIOCGIFADDR


def serve_ui(store: Store, host: str, port: int) -> NoReturn:
    """Print the UI's addresses, then become the MLflow server on the store; a UserError if a server has the runs."""
    if is_server(tracking_url(store)):
        raise UserError(
            "MLFLOW_TRACKING_URI names a server with its own UI; open that address in a browser, or unset the variable."
        )
    _check_port(host, port)
    from cifar_tune.tracking.runs import KIND_TAG, in_sentences, open_client  # with MLflow, which takes seconds

    with in_sentences(store):
        experiments = open_client(store).search_experiments()  # which makes the database if there is none
    address = f"http://{_in_url(_address_to_open(host))}:{port}"
    print(f"MLflow UI on {address} (Ctrl-C ends it)", file=sys.stderr)
    for experiment in experiments:
        if KIND_TAG in experiment.tags:  # without it, the first page shows traces and chats
            page = f"experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
            print(f"  the runs of {experiment.name}: {address}/#/{page}", file=sys.stderr)
    for variable, value in {**_admitted(host, port), **NO_EXECUTORS}.items():
        os.environ.setdefault(variable, value)
    os.environ["MLFLOW_BACKEND_STORE_URI"] = tracking_url(store)  # not an argument, because `ps` shows those
    arguments = ["server", "--host", host, "--port", str(port), "--workers", "1"]
    arguments += ["--default-artifact-root", store.artifacts.as_uri()]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])


def _check_port(host: str, port: int) -> None:
    """Raise a UserError where nothing can listen on the port; the server would take seconds to find out."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        raise UserError(f"--host {host} is no address; use 127.0.0.1, or 0.0.0.0 for every address here.") from None
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: f"Port {port} of {host} is taken; choose another with --port",
            errno.EADDRNOTAVAIL: f"--host {host} is no address of this machine; use 127.0.0.1, or 0.0.0.0 for all",
            errno.EACCES: f"Port {port} may not be used here; choose one above 1023 with --port",
        }
        reason = reasons.get(
            error.errno or 0, f"Port {port} of {host} cannot be used ({error.strerror}); choose another"
        )
        raise UserError(f"{reason}.") from None


def _admitted(host: str, port: int) -> dict[str, str]:
    """MLflow's settings by which its server admits requests with this machine's names, and its own page's requests.

    By default it admits those at localhost and reads from private addresses. No pattern is of use: `10.*` would admit
    pages of strangers, at names like 10.example.com.
    """
    names = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}
    if host not in ("localhost", "127.0.0.1", "::1"):
        names |= {host, socket.gethostname(), socket.getfqdn(), *_own_addresses()}
    places = sorted(_in_url(name) for name in names)
    return {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*places, *(f"{place}:{port}" for place in places)]),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{place}:{port}" for place in places),
    }


def _address_to_open(host: str) -> str:
    """An address that a browser opens, on this machine and where the host says so on others too."""
    if host not in EVERY_ADDRESS:
        return host
    if host == "::":
        return "::1"
    return next((address for address in _own_addresses() if not address.startswith("127.")), "127.0.0.1")


def _own_addresses() -> Iterator[str]:
    """The IPv4 addresses of this machine's interfaces, in their order; none where the system has another way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                answer = fcntl.ioctl(any_socket, ADDRESS_OF_INTERFACE, struct.pack("256s", name.encode()))
                yield socket.inet_ntoa(answer[20:24])


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
