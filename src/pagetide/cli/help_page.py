"""Help pages as wide as the terminal: the framework writes a paragraph a line, and this file breaks them."""

import io
import shlex
import textwrap
from collections.abc import Iterator

from rich.console import Console

_SILENT_DEFAULTS = ("False", "()")
"""That a switch is off and a list is empty unless somebody says so needs no word."""

_UNBROKEN_COLUMNS = 20_000
_COLUMNS_MIN = 20
_HANGING = "      "
_EXAMPLE = "    "
_CONTINUED = " \\"


class HelpPage:
    """What the framework has to show, with every paragraph and every option on one line.

    Attributes:
        console: where the framework prints to.
    """

    def __init__(self) -> None:
        """Nothing to show yet."""
        self._written = io.StringIO()
        self.console: Console = Console(
            file=self._written, width=_UNBROKEN_COLUMNS, force_terminal=False, no_color=True, highlight=False
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing was shown."""
        return not self._written.getvalue()

    def text(self, columns: int) -> str:
        """All of it, in lines that have at most so many columns."""
        page = self._written.getvalue().replace("`", "")
        for default in _SILENT_DEFAULTS:
            page = page.replace(f" [default: {default}]", "")
        return "".join(f"{line}\n" for line in broken(page, columns))


def terminal_columns() -> int:
    """How wide the terminal is, or COLUMNS says; 80 where nobody knows."""
    return max(_COLUMNS_MIN, Console().width)


def broken(page: str, columns: int) -> Iterator[str]:
    """The lines of a page, broken where they are longer than so many columns.

    An option and a command hang over their description, and a command line of the examples goes on after a backslash.
    No two empty lines follow each other.
    """
    before = ""
    for line in (line.rstrip() for line in page.strip("\n").splitlines()):
        if not line and not before:
            continue
        before = line
        if line.startswith("  "):
            yield from _filled(line.strip(), columns, "  ", _HANGING)
        elif line.startswith(" "):
            yield from _command(line.strip(), columns)
        else:
            yield from _filled(line, columns, "", "") if line else [""]


def _filled(text: str, columns: int, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text, columns, initial_indent=first, subsequent_indent=others, break_on_hyphens=False, break_long_words=True
    )


def _command(text: str, columns: int) -> Iterator[str]:
    """A command line as a shell takes it, in as many lines as it needs."""
    line = _EXAMPLE
    for word in _shell_words(text):
        longer = f"{line} {word}" if line.strip() else f"{line}{word}"
        if len(longer) + len(_CONTINUED) > columns and line.strip() and len(f"{_EXAMPLE}{text}") > columns:
            yield line + _CONTINUED
            longer = f"{_HANGING}{word}"
        line = longer
    yield line


def _shell_words(text: str) -> list[str]:
    """The words as they are written, quoted ones in one piece."""
    lexer = shlex.shlex(text, punctuation_chars=False, posix=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    return list(lexer)
