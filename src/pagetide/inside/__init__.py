"""What runs inside an unchanged guest and needs nothing else of ours: a script for any POSIX shell, or for Python."""

from pathlib import Path
from typing import Literal

Language = Literal["sh", "py"]


def tend_path(language: Language = "sh") -> Path:
    """Where the script is that `pagetide tend` runs."""
    return Path(__file__).with_name(f"tend.{language}")


def tend_script(language: Language = "sh") -> str:
    """Its text, to be copied into a guest."""
    return tend_path(language).read_text()
