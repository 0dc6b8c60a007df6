"""What a test needs of the machine: without it the test is skipped, and says what to do; in CI it fails."""

import os
from shutil import which
from typing import NoReturn

import pytest


def lacking(sentence: str) -> NoReturn:
    """Skip the test, since this machine has not what it needs; CI must have that."""
    if os.environ.get("CI"):
        raise RuntimeError(sentence)
    pytest.skip(sentence)


def need(*programs: str) -> None:
    """Skip the test without these programs, which `make setup-guests` installs; CI must have them."""
    for program in programs:
        if which(program) is None:
            lacking(f"there is no {program} here: as root on Debian, make setup-guests")
