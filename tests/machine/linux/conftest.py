"""A real guest's kernel is its own, and the device's are tested both ways: one run is enough."""

import pytest

from tests.mark_all import mark_all

pytest_itemcollected = mark_all(pytest.mark.jit, pytest.mark.slow)
