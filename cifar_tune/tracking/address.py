"""The tracking address: where MLflow's runs go, how it is written without its password, and whether it is of use.

Imports no MLflow, which takes seconds, so that a wrong address is refused at once.
"""

import base64
import configparser
import json
import os
import re
import sqlite3
import ssl
from contextlib import closing, suppress
from http.client import HTTPException
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from cifar_tune.errors import UserError
from cifar_tune.machine import is_full
from cifar_tune.store import Store

VARIABLE = "MLFLOW_TRACKING_URI"
SERVERS = ("http", "https")
PING = "/api/2.0/mlflow/experiments/search?max_results=1"
PING_SECONDS = 3.0
OWN_CREDENTIALS = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")  # with these, only MLflow can sign a request


# "away" is waited for, and so is "slow", which may only take longer to answer; "refused" ends a command that has not
# begun its work; after "changed" all is looked up anew.
Kind = Literal["away", "slow", "refused", "changed"]


class Failure(NamedTuple):
    """What a failure is, in a sentence."""

    kind: Kind
    sentence: str


def tracking_url(store: Store) -> str:
    """The server or database that MLFLOW_TRACKING_URI names, or else the database in the store."""
    return os.environ.get(VARIABLE) or store.mlflow_url


def shown(url: str) -> str:
    """The address without user name, password and options, for people and logs."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return re.sub(r".*@", "", url)
    return f"{scheme}://{re.split('[?#&]', rest.rpartition('@')[2])[0]}"


def is_server(url: str) -> bool:
    """Whether the address is one of an MLflow server, and not of a database."""
    return url.partition(":")[0] in SERVERS


def silence(url: str) -> Failure:
    """The failure of a server or database that does not answer, or whose disk is full."""
    if is_server(url):
        return Failure("away", f"MLflow at {shown(url)} does not answer.")
    if url.startswith("sqlite") and is_full(database_path(url).parent):
        return full_disk(url)
    return Failure("away", f"MLflow's database {shown(url)} is locked or cannot be reached.")


def full_disk(url: str) -> Failure:
    """The failure of a server or database that has no room."""
    what = "MLflow at" if is_server(url) else "MLflow's database"
    return Failure("away", f"The disk of {what} {shown(url)} is full; make room there.")


def server_error(url: str, status: int) -> Failure:
    """The failure of a server that is there, or of what stands before it, and answers with an error."""
    return Failure("away", f"MLflow at {shown(url)} answers with an error (HTTP {status}).")


def check_form(url: str) -> None:
    """Raise a UserError for an address that MLflow cannot write to, whatever runs there."""
    scheme, separator, rest = url.partition(":")
    if scheme in SERVERS and (not rest.startswith("//") or not _has_host(url)):
        raise UserError(f"{VARIABLE} is no address; write it like http://127.0.0.1:5000, or unset it.")
    if separator and re.fullmatch(r"[\w.-]+", scheme) and re.match(r"\d+(/|$)", rest):
        raise UserError(f"{VARIABLE}={shown(url)} lacks its scheme; write http://{shown(url)}.")
    if scheme in ("uc", "databricks-uc"):
        raise UserError(f"{VARIABLE}={scheme} names a catalog of models; name a server or a database for the runs.")
    if scheme == "databricks" and not _has_databricks_credentials():
        raise UserError(no_credentials(url))
    is_folder = scheme == "file" or (scheme != "databricks" and not separator)
    if is_folder and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("1", "true"):
        raise UserError(
            f"{VARIABLE} names a folder, and MLflow no longer writes to folders; "
            f"name a server or a database such as sqlite:////home/me/mlflow.db."
        )


def _check_version(row: tuple[str] | None, url: str) -> None:
    """Raise a UserError if the installed MLflow does not know the version of the database's tables."""
    spec = find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    versions = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    if row is not None and not any(versions.glob(f"{row[0]}_*.py")):
        raise UserError(newer_database(url))


def newer_database(url: str) -> str:
    """The sentence for a database that a newer MLflow has written to; MLflow's own advice would not help."""
    return f"{shown(url)} is of a newer MLflow than {version('mlflow')}, which is installed here; install that one."


def _has_databricks_credentials() -> bool:
    """Whether there is any place where Databricks' own client would find some; whether they are right, it tells."""
    return Path("~/.databrickscfg").expanduser().exists() or any(name.startswith("DATABRICKS_") for name in os.environ)


def no_credentials(url: str) -> str:
    """The sentence for a Databricks address without credentials."""
    return f"{VARIABLE}={shown(url)} finds no credentials; run `databricks auth login`, or unset the variable."


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def answers(url: str) -> bool:
    """Whether the server or database can be reached now; a UserError where no waiting will help."""
    return trouble(url) is None


def trouble(url: str, seconds: float = PING_SECONDS) -> Failure | None:
    """Why the server or database gives no answer in this time, or no good one; None if it does.

    Raises a UserError where no waiting will help.
    """
    if is_server(url):
        return _trouble_of_server(url, seconds)
    if url.startswith("sqlite") and not _database_answers(url):  # MLflow connects to the others itself
        return silence(url)
    return None


def _trouble_of_server(url: str, seconds: float) -> Failure | None:
    """Ask the server for an experiment, which changes nothing there, even if it reads the question much later."""
    scheme, _, rest = url.partition("://")
    address = f"{scheme}://{rest.rpartition('@')[2]}".rstrip("/") + PING
    try:
        with urlopen(Request(address, headers=_credentials(url)), timeout=seconds) as response:
            json.loads(response.read(10_000_000))
            return None
    except HTTPError as error:
        return _trouble_of_answer(error, url)
    except json.JSONDecodeError:
        raise UserError(f"There is no MLflow server at {shown(url)}; check {VARIABLE}, or unset it.") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLError):
            return None  # MLflow has settings of its own for certificates
        return Failure("slow" if isinstance(reason, TimeoutError) else "away", silence(url).sentence)


def _trouble_of_answer(error: HTTPError, url: str) -> Failure | None:
    """The failure of a server in trouble, None for another that is there; a UserError if it will always say no."""
    if error.code in (401, 403) and any(os.environ.get(name) for name in OWN_CREDENTIALS):
        return None
    if error.code == 401:
        raise UserError(wrong_password(url))
    if error.code == 403:
        raise UserError(f"MLflow at {shown(url)} refuses this client{_reason(error)}.")
    if error.code == 404:
        raise UserError(f"There is no MLflow server at {shown(url)}; check {VARIABLE}, or unset it.")
    return server_error(url, error.code) if error.code >= 500 else None


def wrong_password(url: str) -> str:
    """The sentence for a server that does not know the user."""
    return (
        f"MLflow at {shown(url)} refuses the user name or password; "
        f"set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or unset {VARIABLE}."
    )


def _reason(error: HTTPError) -> str:
    """What the server says of its error, to end a sentence with; of a page for people its status alone."""
    text = error.read(1000).decode("utf-8", "replace")
    with suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["message"])
    words = " ".join(text.split())[:80].rstrip(".")
    return f": {words}" if words and "<" not in words else f" (HTTP {error.code})"


def _credentials(url: str) -> dict[str, str]:
    """The header with the credentials that MLflow would send: of the address, the environment, or MLflow's file."""
    file = configparser.ConfigParser(interpolation=None)
    with suppress(configparser.Error, OSError, ValueError):
        file.read(Path("~/.mlflow/credentials").expanduser(), encoding="utf-8")
    names = ("mlflow_tracking_username", "mlflow_tracking_password")
    user, password = [os.environ.get(name.upper()) or file.get("mlflow", name, fallback=None) or "" for name in names]
    in_address, separator, _ = url.partition("://")[2].rpartition("@")
    if separator:
        user, _, password = map(unquote, in_address.partition(":"))
    if user and password:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def database_path(url: str) -> Path:
    """The file of an SQLite address."""
    return Path(url.partition(":///")[2].partition("?")[0]).absolute()


def _database_answers(url: str) -> bool:
    """Whether the SQLite file can be read now: it may be locked, and where there is none yet, MLflow makes it."""
    path = database_path(url)
    if not path.is_file():
        return True
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=PING_SECONDS)) as connection:
            has_version = "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'"
            if connection.execute(has_version).fetchone()[0]:
                _check_version(connection.execute("SELECT version_num FROM alembic_version").fetchone(), url)
    except sqlite3.OperationalError as error:
        if "unable to open" not in str(error):
            return False
        raise UserError(f"MLflow's database {path} cannot be opened; check its rights, or unset {VARIABLE}.") from None
    except sqlite3.DatabaseError:
        raise UserError(f"{path} is damaged, or is no database; move it away, and a new one is made.") from None
    return True
