"""The daemon is processes, sockets and limits around devices that are tested both ways: one run is enough."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.running_server import Running
from tests.mark_all import mark_all

pytest_itemcollected = mark_all(pytest.mark.jit)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A server that listens at tmp_path / "host" in a thread."""
    running = Running()
    running.server.listen(tmp_path / "host")
    running.start()
    yield running
    running.stop()
