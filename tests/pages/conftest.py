"""Usage is read with numpy and DuckDB: one run is enough."""

import pytest

from tests.mark_all import mark_all

pytest_itemcollected = mark_all(pytest.mark.jit)
