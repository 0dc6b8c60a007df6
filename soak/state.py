"""What a soak has done so far, in a file: a later one goes on from there."""

import os
import random
from collections import Counter
from pathlib import Path

import msgspec

from pagetide.whole_file import write_whole

_NAME = "state.json"


class StateError(Exception):
    """The state cannot be read or written; the message says what would do."""


class Failure(msgspec.Struct):
    """Something that broke.

    Attributes:
        part: where.
        seed: of the trial.
        what: what was not as it must be.
        replay: the command that tries it again.
        commit: of the tree that it was seen with.
        again: what came of trying it again later, with another tree perhaps.
        minutes: how long the trial could take, where it takes all that it has: its seed plays as much as fits in that.
    """

    part: str
    seed: int
    what: str
    replay: str
    commit: str
    again: str = ""
    minutes: float | None = None


class Done(msgspec.Struct):
    """What a part has done.

    Attributes:
        trials: how many were tried to their end.
        seconds: how long that took.
        reached: how often each path was.
        told: what the last trial found, as Markdown.
    """

    trials: int = 0
    seconds: float = 0.0
    reached: dict[str, int] = {}
    told: str = ""

    def count(self, reached: Counter[str]) -> None:
        """Add what was reached since."""
        for path, times in reached.items():
            self.reached[path] = self.reached.get(path, 0) + times


class State(msgspec.Struct):
    """All that is kept.

    Attributes:
        first_seed: of every part; trial N has the seed first_seed + N.
        parts: by name.
        failures: in the order in which they were seen.
        commits: of the trees that were run, in order.
        other_seeds: the first seeds of others that were added.
    """

    first_seed: int
    parts: dict[str, Done] = {}
    failures: list[Failure] = []
    commits: list[str] = []
    other_seeds: list[int] = []

    def add(self, other: "State") -> None:
        """Add what another soak has done, for a table of both."""
        for name, done in other.parts.items():
            mine = self.parts.setdefault(name, Done())
            mine.trials += done.trials
            mine.seconds += done.seconds
            mine.count(Counter(done.reached))
            mine.told = done.told or mine.told
        self.failures += other.failures
        self.other_seeds += [other.first_seed, *other.other_seeds]
        self.commits += [commit for commit in other.commits if commit not in self.commits]


def load(folder: Path) -> State:
    """What was kept in a folder, or a beginning at a seed of chance.

    Raises:
        StateError: there is something else there.
    """
    path = folder / _NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return State(random.SystemRandom().randrange(1 << 31))
    except (OSError, msgspec.DecodeError) as error:
        raise StateError(f"{path} cannot be resumed ({error}); remove it, or name another folder by --state") from error


def save(state: State, folder: Path) -> None:
    """Keep it, whole or not at all.

    Raises:
        StateError: that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / _NAME, msgspec.json.format(msgspec.json.encode(state)))
    except OSError as error:
        raise StateError(f"{folder} cannot be written: {os.strerror(error.errno or 0)}") from error
