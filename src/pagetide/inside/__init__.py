"""What runs inside an unchanged guest and needs nothing else of ours: a script for any POSIX shell, or for Python.

Each is one file when it gets there. The one for Python is made of parts here, the last of which is the program.
"""

from pathlib import Path
from typing import Literal

Language = Literal["sh", "py"]

SHELL_SCRIPT = Path(__file__).with_name("tend.sh")
"""Where the one for a shell is."""

_PARTS = {"sh": ("tend.sh",), "py": ("guest.py", "cache.py", "tend.py")}


def tend_script(language: Language = "sh") -> str:
    """The text of the script that `pagetide tend` runs, to be copied into a guest."""
    texts = [Path(__file__).with_name(name).read_text() for name in _PARTS[language]]
    first = texts[-1].splitlines(keepends=True)[0]
    lines = [line for text in texts for line in text.splitlines(keepends=True)]
    return first + "".join(line for line in lines if line != first and not line.startswith("from pagetide."))
