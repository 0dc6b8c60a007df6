"""The script that a guest runs to tell of its memory."""

from pathlib import Path

GUEST_SCRIPT = Path(__file__).with_name("script.sh").read_text()
"""A POSIX shell script that reads and writes one text; `text.py` reads that."""
