"""Who runs the tests of real guests, which wait more than they compute."""

from typing import Literal

import pytest


def real_guests(worker: Literal[1, 2, 3]) -> pytest.MarkDecorator:
    """Have one worker run all tests with this mark, while others compute: each of the three takes four minutes."""
    return pytest.mark.xdist_group(f"real guests {worker}")
