"""The application that the commands belong to, and what they share in reading arguments."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cyclopts import App, Group, Token

_Command = TypeVar("_Command", bound=Callable[..., int])


def _version() -> str:
    from importlib.metadata import version  # a tenth of what `--help` takes

    return version("pagetide")


app = App(
    name="pagetide",
    help="Gives a guest's free memory back to its host, and shows that it did.",
    version=_version,
    version_flags=["--version"],
    help_formatter="plain",
    help_format="plaintext",
    help_on_error=False,
    result_action="return_value",
)


def command(examples: str) -> Callable[[_Command], _Command]:
    """Adds a function to the application, with these examples at the end of its help.

    A command's help is Markdown, whose reader takes a fifth of the time of `pagetide --help`, which has but sentences.
    """
    return app.command(help_epilogue=examples, help_format="markdown")


def whole(_: Any, tokens: Sequence[Token]) -> int:
    """A converter that refuses 1.5, which the framework would round."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from None


def listed(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a list, written with commas or given one by one, each once."""
    return tuple(dict.fromkeys(name for word in words for name in word.split(",")))


GUEST = Group("Guest", sort_key=1)
REPORTING = Group("Reporting", sort_key=2)
OUTPUT = Group("Settings and output", sort_key=3)
