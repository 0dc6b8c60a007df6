"""`pagetide tend`: the script for inside a guest, printed or run."""

import os
import sys
from collections.abc import Sequence

from pagetide.inside import SHELL_SCRIPT, Language, tend_script


def print_script(language: Language) -> int:
    """Print it, to be copied into a guest."""
    print(tend_script(language), end="")
    return 0


def run_script(arguments: Sequence[str], language: Language) -> int:
    """Become the script."""
    sys.stdout.flush()
    words = {"sh": ["/bin/sh", str(SHELL_SCRIPT)], "py": [sys.executable, "-m", "pagetide.inside.tend"]}[language]
    return os.execv(words[0], [*words, *arguments])  # noqa: S606 - the script is ours
