"""Tracking addresses: which are refused before anything starts, and that no password of one is ever shown."""

import os
import sqlite3
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_tune.errors import UserError
from cifar_tune.tracking.address import Failure, answers, check_form, shown, trouble

USABLE = [
    "http://127.0.0.1:5000",
    "https://me:secret@mlflow.example.com/team",
    "http://[::1]:5000",
    "sqlite:////home/me/mlflow.db",
    "postgresql+psycopg2://me:secret@db/mlflow",
]
REFUSED = {
    "./mlruns": "names a folder",
    "/home/me/mlruns": "names a folder",
    "file:///home/me/mlruns": "names a folder",
    "localhost:5000": "write http://localhost:5000",
    "127.0.0.1:5000": "write http://127.0.0.1:5000",
    "http://": "like http://127.0.0.1:5000",
    "http:/127.0.0.1:5000": "like http://127.0.0.1:5000",
    "http://me:secret@host:port": "like http://127.0.0.1:5000",
    "databricks-uc": "a catalog of models",
    "databricks": "finds no credentials",
    "databricks://profile": "finds no credentials",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith(("MLFLOW_", "DATABRICKS_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", "/nowhere")  # MLflow keeps a password there


@pytest.mark.parametrize("url", USABLE)
def test_an_address_of_a_server_or_a_database_is_accepted(url: str) -> None:
    check_form(url)


@pytest.mark.parametrize(("url", "words"), REFUSED.items())
def test_an_address_that_mlflow_cannot_write_to_is_refused(url: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        check_form(url)
    assert "secret" not in str(refused.value)


def test_databricks_is_accepted_where_its_client_may_find_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", "https://example.cloud.databricks.com")
    check_form("databricks")


@given(password=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=6))
def test_a_password_is_never_shown(password: str) -> None:
    secret = f"<{password}>"
    for url in (
        f"http://me:{secret}@host:5000/path",
        f"postgresql://me:{secret}@host/mlflow?sslmode=require",
        f"mysql+pymysql://host/mlflow?user=a@b&password={secret.replace('@', '')}",
    ):
        assert password not in shown(url)


def test_an_address_is_shown_with_its_host_and_path() -> None:
    assert shown("http://me:secret@host:5000/path") == "http://host:5000/path"
    assert shown("sqlite:////home/me/mlflow.db") == "sqlite:////home/me/mlflow.db"
    assert shown("databricks") == "databricks"


class Answering(BaseHTTPRequestHandler):
    """A server that answers everything with the status and the body of the class."""

    status, body, seen = 200, b"{}", ""

    def do_GET(self) -> None:
        type(self).seen = self.headers.get("Authorization", "")
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def host() -> Iterator[str]:
    """The host and port of a server that is no MLflow."""
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"You are not authenticated.", "refuses the user name or password"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}', "client: Permission denied."),
        (403, b"Invalid Host header - possible DNS rebinding attack detected", "client: Invalid Host header"),
        (403, b"<html><h1>Forbidden</h1></html>", r"client \(HTTP 403\)\.$"),
        (404, b"Not found", "There is no MLflow server"),
        (200, b"<html>Welcome</html>", "There is no MLflow server"),
    ],
)
def test_what_no_waiting_mends_is_refused(
    host: str, status: int, body: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answering, "status", status)
    monkeypatch.setattr(Answering, "body", body)
    with pytest.raises(UserError, match=words) as refused:
        answers(f"http://me:secret@{host}")
    assert host in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_server_in_trouble_and_one_that_is_not_there_are_waited_for(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answering, "status", 503)
    assert trouble(f"http://{host}") == Failure("away", f"MLflow at http://{host} answers with an error (HTTP 503).")
    assert not answers("http://127.0.0.1:9")


def test_the_credentials_are_those_that_mlflow_sends(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answering, "status", 200)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = a\nmlflow_tracking_password = b%\n"
    )
    assert answers(f"http://{host}")
    assert Answering.seen == "Basic YTpiJQ=="  # a:b%
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "c")
    assert answers(f"http://{host}")
    assert Answering.seen == "Basic YTpj"  # a:c
    assert answers(f"http://d:e%40@{host}/")
    assert Answering.seen == "Basic ZDplQA=="  # d:e@
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "f")
    assert answers(f"http://{host}")
    assert Answering.seen == "Bearer f"


def test_a_damaged_database_is_refused_and_a_locked_one_is_waited_for(tmp_path: Path) -> None:
    damaged, locked = tmp_path / "damaged.db", tmp_path / "locked.db"
    damaged.write_text("no database, but long enough for a header of one" * 100)
    with pytest.raises(UserError, match=r"damaged\.db is damaged"):
        answers(f"sqlite:///{damaged}")
    assert answers(f"sqlite:///{tmp_path / 'new.db'}")
    connection = sqlite3.connect(locked, isolation_level=None)
    connection.execute("CREATE TABLE t (x)")
    assert answers(f"sqlite:///{locked}")
    connection.execute("BEGIN EXCLUSIVE")
    assert not answers(f"sqlite:///{locked}")
    connection.close()
