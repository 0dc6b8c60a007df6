"""What tests of several rooms of the host begin with."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.host.daemon.process import Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """One that listens at the sockets one and two."""
    with closing(Daemon(tmp_path)) as daemon:
        yield daemon
