"""A `pagetide serve` whose log is read as it comes: which sentences of the source it says, and no error of ours."""

import ast
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pagetide
from soak.part import BrokenError
from tests.host.daemon.process import Daemon

_SOURCE = Path(pagetide.__file__).parent
_LETTERS_MIN = 8
"""A sentence with fewer letters of its own would be found in any line."""
_ERRORS = frozenset(
    {
        *("RemoteProtocolError", "GuestGoneError", "GuestMemoryError", "ValueError", "UnreadableStateError"),
        *("ControlError", "HandoverError", "NotSharedError", "QueueLostError"),
    }
)
_REASONS = frozenset({"reason", "refusal"})
"""Variables that hold a sentence until it is raised."""
_LEVELS = frozenset({"info", "warning", "error", "exception"})
_OF_THE_OTHER_SIDE = frozenset({"FrontendChannel", "Frontend"})


class Sentences:
    """What some files can say, and which of it a line says."""

    def __init__(self, files: Sequence[str], others: Mapping[str, str] = MappingProxyType({})) -> None:
        """Read them: paths below the package; a folder is all files in it. Other sentences come by their paths."""
        self._patterns = {path: re.compile(re.escape(text)) for path, text in others.items()}
        for name in files:
            place = _SOURCE / name
            for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
                room = path.relative_to(_SOURCE).with_suffix("")
                for parts in _said(ast.parse(path.read_text())):
                    if sum(char.isalpha() for part in parts for char in part) >= _LETTERS_MIN:
                        pattern = ".*".join(map(re.escape, parts))
                        self._patterns[f"{room}: {'…'.join(parts)}"] = re.compile(pattern)

    @property
    def paths(self) -> frozenset[str]:
        """All of them, each with its file."""
        return frozenset(self._patterns)

    def within(self, line: str) -> Iterator[str]:
        """Those that a line of the log says."""
        line = line.replace('\\"', '"')
        for path, pattern in self._patterns.items():
            if pattern.search(line):
                yield path


def _said(node: ast.AST) -> Iterator[list[str]]:
    """The literal parts of each message that is raised or logged below a node."""
    if isinstance(node, ast.ClassDef) and node.name in _OF_THE_OTHER_SIDE:
        return
    if isinstance(node, ast.Call) and node.args:
        parts = _literals(node.args[0])
        match node.func:
            case ast.Name(id=name) if name in _ERRORS and parts:
                yield parts
            case ast.Attribute(attr=level, value=ast.Name(id="_log") | ast.Attribute(attr="_log")) if level in _LEVELS:
                if parts:
                    yield [piece for part in parts for piece in re.split(r"%[sdg]", part)]
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in _REASONS:
        parts = _literals(node.value)
        if parts:
            yield parts
    for child in ast.iter_child_nodes(node):
        yield from _said(child)


def _literals(node: ast.expr) -> list[str]:
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            parts = [""]
            for value in values:
                if isinstance(value, ast.Constant):
                    parts[-1] += str(value.value)
                else:
                    parts.append("")
            return parts
        case _:
            return []


_OURS = ("in pagetide", "Traceback")


class ReadLog:
    """Lines of a daemon's log, counted by what they say."""

    def __init__(self, sentences: Sentences, reached: Counter[str]) -> None:
        self._sentences, self._reached = sentences, reached
        self._ours: list[str] = []

    def take(self, line: str) -> None:
        """Count a line."""
        self._reached.update(self._sentences.within(line))
        if any(word in line for word in _OURS):
            self._ours.append(line.strip())

    def check(self) -> None:
        """Raise BrokenError if the daemon has called something an error of its own."""
        if self._ours:
            raise BrokenError(f"the daemon's log: {' '.join(self._ours)[:500]}")


class ReadDaemon(Daemon):
    """A daemon's process, with its log read by a thread."""

    def __init__(self, folder: Path, log: ReadLog, *options: str) -> None:
        """Start it, and wait until it listens."""
        super().__init__(folder, *options)
        self._log = log
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr:
            for line in self.process.stderr:
                self._log.take(line)

    def open_fds(self) -> int:
        """How many descriptors it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def check(self) -> None:
        """Raise BrokenError if it has ended, or said that something is its own error."""
        self._log.check()
        if self.process.poll() is not None:
            raise BrokenError(f"the daemon ended with status {self.process.returncode}")

    def close(self) -> None:
        """Leave no process behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(10)
