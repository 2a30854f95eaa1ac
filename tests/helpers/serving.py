"""A server of files on this machine, for the tests of downloads."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files, and below /short/ only their last 100 bytes under headers that announce the whole file."""

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        file = super().send_head()
        if file is not None and self.path.startswith("/short/"):
            file.seek(-100, io.SEEK_END)
        return file


@contextmanager
def serving(folder: Path) -> Iterator[ThreadingHTTPServer]:
    """Serve a folder on a free local port."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()
