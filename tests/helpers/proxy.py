"""A proxy before a real MLflow server, which is slow or answers in the server's place, as those of networks do."""

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

PAGE = b"<html><form>Log in</form></html>"


class Proxy(ThreadingHTTPServer):
    """A proxy that passes requests on, `seconds` late, unless `status` is set: that is its answer, with a page."""

    daemon_threads = True

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server_address_behind = urlsplit(server).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seconds = 0.0
        self.status: int | None = None
        self.spares_questions = False  # whether the status is the answer to writing alone


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.server.seconds)
        is_question = self.command == "GET" or self.path.endswith("/search")
        if self.server.status is not None and not (is_question and self.server.spares_questions):
            self._send(self.server.status, PAGE, "text/html")
            return
        behind = http.client.HTTPConnection(self.server.server_address_behind)
        headers = {name: self.headers[name] for name in ("Content-Type", "Authorization") if name in self.headers}
        behind.request(self.command, self.path, body, headers)
        answer = behind.getresponse()
        self._send(answer.status, answer.read(), answer.headers.get("Content-Type", ""))

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - named by the base class

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


@contextmanager
def proxy_before(server: str) -> Iterator[Proxy]:
    with Proxy(server) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()
