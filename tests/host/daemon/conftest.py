"""The daemon is processes, sockets and limits around devices that are tested both ways: one run is enough."""

import pytest

from tests.mark_all import mark_all

pytest_itemcollected = mark_all(pytest.mark.jit)
