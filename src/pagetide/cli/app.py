"""The application that the commands belong to, and what they share in reading arguments."""

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from cyclopts import App, Group, Token

app = App(
    name="pagetide",
    help="Gives a guest's free memory back to its host, and shows that it did.",
    version=lambda: importlib.metadata.version("pagetide"),
    version_flags=["--version"],
    help_formatter="plain",
    help_on_error=False,
    result_action="return_value",
)


def whole(_: Any, tokens: Sequence[Token]) -> int:
    """A converter that refuses 1.5, which the framework would round."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from None


GUEST = Group("Guest", sort_key=1)
REPORTING = Group("Reporting", sort_key=2)
OUTPUT = Group("Settings and output", sort_key=3)
