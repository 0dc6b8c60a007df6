"""What a folder's conftest says of all tests in it."""

from collections.abc import Callable

import pytest


def mark_all(*marks: pytest.MarkDecorator) -> Callable[[pytest.Item], None]:
    """Pytest's hook `pytest_itemcollected` for a folder: each test in it has these marks."""

    def pytest_itemcollected(item: pytest.Item) -> None:
        for mark in marks:
            item.add_marker(mark)

    return pytest_itemcollected
