"""Whole commands over days of samples, which only compiled kernels get through."""

import pytest

from tests.mark_all import mark_all

pytest_itemcollected = mark_all(pytest.mark.jit)
