"""What runs inside an unchanged guest: a script for any POSIX shell, which needs nothing else of ours."""

from pathlib import Path


def tend_path() -> Path:
    """Where the script is that `pagetide tend` runs."""
    return Path(__file__).with_name("tend.sh")


def tend_script() -> str:
    """Its text, to be copied into a guest."""
    return tend_path().read_text()
