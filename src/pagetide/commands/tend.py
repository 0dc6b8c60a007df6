"""`pagetide tend`: the script for inside a guest, printed or run."""

import os
import sys
from collections.abc import Sequence

from pagetide.inside import Language, tend_path, tend_script


def print_script(language: Language) -> int:
    """Print it, to be copied into a guest."""
    print(tend_script(language), end="")
    return 0


def run_script(arguments: Sequence[str]) -> int:
    """Become the script."""
    sys.stdout.flush()
    words = ["/bin/sh", str(tend_path()), *arguments]
    return os.execv(words[0], words)  # noqa: S606 - the script is ours
