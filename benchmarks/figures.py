"""Figures as Markdown: a section a part, which says how it was made, and a document that keeps the others.

The document's measured sections stand between two lines of their own. A part that is measured anew takes the place of
its section; the others, and what people wrote around them, stay as they are.
"""

import datetime as dt
import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.rows import Row
from pagetide.machine.versions import versions

BEGIN = "<!-- measured: what follows is made by `python -m benchmarks --markdown` -->"
END = "<!-- measured: end -->"
_HEADING = "### "


class Measured(NamedTuple):
    """A part's figures, and what they depend on.

    Attributes:
        part: its name on the command line.
        date: of the measurement.
        commit: the code's, and whether it was changed.
        processor: this machine's, with how many of it.
        kernel: its release.
        load: how many processes wanted to run in the minute before it ended, the benchmarks' own among them.
        rows: the figures.
    """

    part: str
    date: str
    commit: str
    processor: str
    kernel: str
    load: float
    rows: Sequence[Row]


def measured(part: str, rows: Sequence[Row]) -> Measured:
    """These figures, as of now, here."""
    found = versions()
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return Measured(
        part, today, _commit(), f"{os.cpu_count()} CPUs {found['cpu']}", found["kernel"], os.getloadavg()[0], rows
    )


def _commit() -> str:
    """The commit of this tree, and whether its code differs; `unknown` where there is no repository."""
    root = Path(__file__).parent.parent
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        status = [*git, "status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + (", changed" if changed.stdout else "")


def section(figures: Measured) -> str:
    """One part's heading, how it was made, and its table."""
    return _environment().get_template("section.md").render(figures=figures)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda text: text.replace("|", "\\|")
    return environment


def with_sections(document: str, sections: Sequence[tuple[str, str]], order: Sequence[str]) -> str:
    """A document with these sections in it, in place of those that it had of the same parts.

    Args:
        document: what there is; without the two lines around the measured part they are put at its end.
        sections: part and section of each.
        order: the parts, in the order in which they are to stand.
    """
    if BEGIN not in document or END not in document:
        document = f"{document.rstrip()}\n\n{BEGIN}\n\n{END}\n".lstrip()
    before, _, rest = document.partition(BEGIN)
    inside, _, after = rest.partition(END)
    parts = {
        text.partition("\n")[0]: f"{_HEADING}{text.rstrip()}\n" for text in f"\n{inside}".split(f"\n{_HEADING}")[1:]
    }
    parts |= dict(sections)
    ranked = sorted(parts, key=lambda part: order.index(part) if part in order else len(order))
    body = "\n".join(parts[part].rstrip() + "\n" for part in ranked)
    return f"{before}{BEGIN}\n\n{body}\n{END}{after}"
