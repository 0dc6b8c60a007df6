"""Commands start processes that run kernels as everywhere: one run is enough."""

import pytest

from tests.mark_all import mark_all

pytest_itemcollected = mark_all(pytest.mark.jit)
