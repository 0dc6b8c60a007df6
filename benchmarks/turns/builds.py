"""Two builds of pagetide, by turns in one run: that of a commit, in a worktree of its own, and this one.

On a machine that others use, or whose clock changes, two figures taken one after the other say little; the ratio of
two that were taken in turns says more. Each build is a process that does, again and again, what it is asked to.
"""

import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.rows import Row

ROOT = Path(__file__).parent.parent.parent
"""This tree."""

BEFORE = "16921e9"
"""The commit that targets are stated against."""


class CommitError(Exception):
    """There is no worktree of that commit; the message is git's."""


class Build:
    """A build of pagetide at work.

    Its process runs a script whose imports come from the build's tree. A line that the script reads is what it is to
    do, and the number that it writes is how long that took.
    """

    def __init__(self, tree: Path, script: Path) -> None:
        """Start the script on the build in this tree."""
        # Where this build keeps its kernels is not for the other: it may not even know what keeps them.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CACHE_")}
        environment["PYTHONPATH"] = str(tree / "src")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> "Build":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def take(self, work: str) -> float:
        """Have it done once; what the script says that it took.

        Raises:
            RuntimeError: the script ended; it has said why.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{work}\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"a build ended while it did {work!r}")
        return float(line)


@contextmanager
def tree_of(commit: str, root: Path = ROOT) -> Iterator[Path]:
    """A worktree of the repository at this commit, for as long as it is used.

    Raises:
        CommitError: git makes none.
    """
    git = ["git", "-C", str(root), "worktree"]
    with tempfile.TemporaryDirectory(prefix="pagetide-") as folder:
        tree = Path(folder) / "tree"
        made = subprocess.run(
            [*git, "add", "--quiet", "--detach", str(tree), commit], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            raise CommitError(made.stderr.strip())
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


@contextmanager
def both(commit: str, script: Path, root: Path = ROOT) -> Iterator[tuple[Build, Build]]:
    """The commit's build and this tree's, each running the script."""
    with ExitStack() as stack:
        before = stack.enter_context(Build(stack.enter_context(tree_of(commit, root)), script))
        yield before, stack.enter_context(Build(root, script))


class Turn(NamedTuple):
    """A build, and what it is to do in its turn."""

    build: Build
    work: str


def turns_row(before: Turn, after: Turn, turns: int, name: str, at_most: float) -> Row:
    """Take both turns so many times, after once for nothing; the median of the time of `after` over that of `before`.

    A turn of which the script cannot say how long it took counts for nothing.
    """
    taken = [after.build.take(after.work) / before.build.take(before.work) for _ in range(1 + turns)][1:]
    ratios = sorted(ratio for ratio in taken if not math.isnan(ratio))
    if not ratios:
        return Row(name, None, "ratio", at_most=at_most, note="no turn had the processors to itself")
    note = f"from {ratios[0]:.3g} to {ratios[-1]:.3g}"
    return Row(name, statistics.median(ratios), "ratio", at_most=at_most, note=note)
