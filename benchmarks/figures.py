"""Figures as Markdown: a section a part, which says how it was made, and a document that keeps the others.

The document's measured sections stand between two lines of their own, one for each kind of processor. A part that is
measured anew takes the place of its section of this processor; the others, and what people wrote around them, stay.
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
_OF = ", "
"""Between a heading's part and its processor."""


class Measured(NamedTuple):
    """A part's figures, and what they depend on.

    Attributes:
        part: its name on the command line.
        date: of the measurement.
        commit: the code's, and whether it was changed.
        processor: this machine's.
        processors: how many of it there are.
        kernel: its release.
        load: how many processes wanted to run in the minute before it ended, the benchmarks' own among them.
        rows: the figures.
    """

    part: str
    date: str
    commit: str
    processor: str
    processors: int
    kernel: str
    load: float
    rows: Sequence[Row]

    @property
    def heading(self) -> str:
        """Its section's: figures of two kinds of processor stand apart."""
        return f"{self.part}{_OF}{self.processor}"


def measured(part: str, rows: Sequence[Row]) -> Measured:
    """These figures, as of now, here."""
    found = versions()
    today = dt.datetime.now(dt.UTC).date().isoformat()
    processors = os.cpu_count() or 1
    return Measured(part, today, _commit(), found["cpu"], processors, found["kernel"], os.getloadavg()[0], rows)


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


def with_sections(document: str, figures: Sequence[Measured], order: Sequence[str]) -> str:
    """A document with the sections of these figures in it, in place of those that it had under the same headings.

    Args:
        document: what there is; without the two lines around the measured part they are put at its end.
        figures: of a part each.
        order: the parts, in the order in which they are to stand.
    """
    if BEGIN not in document or END not in document:
        document = f"{document.rstrip()}\n\n{BEGIN}\n\n{END}\n".lstrip()
    before, _, rest = document.partition(BEGIN)
    inside, _, after = rest.partition(END)
    found = {
        text.partition("\n")[0]: f"{_HEADING}{text.rstrip()}\n" for text in f"\n{inside}".split(f"\n{_HEADING}")[1:]
    }
    found |= {each.heading: section(each) for each in figures}

    def rank(heading: str) -> tuple[int, str]:
        part, _, processor = heading.partition(_OF)
        return order.index(part) if part in order else len(order), processor

    body = "\n".join(found[heading].rstrip() + "\n" for heading in sorted(found, key=rank))
    return f"{before}{BEGIN}\n\n{body}\n{END}{after}"
