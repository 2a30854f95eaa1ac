"""What tests of faults share: a real MLflow server for the tests of a file."""

from collections.abc import Iterator

import pytest
from tracking_server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()
