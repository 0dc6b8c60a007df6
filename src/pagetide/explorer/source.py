"""The guest's and the host's own source, made to give way before everything that another processor could notice.

An explorer must be able to stop an actor between any two steps, and a compiled kernel cannot be stopped. So the very
files that run elsewhere are read again here, and each function that touches shared state is turned into a generator
that yields a *pause* right before

- taking a lock;
- each atomic on REQUEST or WAKE, also under the lock;
- when the ring is what is explored, each load and store of its indices and events;
- a kick, and a call that punches a hole;
- each statement that reads or writes the zone's words or page records while the actor does not hold the zone lock. `+=`
  is a read and a write. For a vCPU's own words any lock will do: its list has one. Settings, which do not change while
  a design is on, do not count.

What runs between two pauses is one step. Under the zone lock everything else is one step, which is exact as long as
whoever touches a zone's state holds it; who does not is stopped at each statement.

A variant is the same source with one edit, `Edit`. Nothing is written anew except the ground: atomics and RAM.
"""

import ast
import builtins
import itertools
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pagetide.explorer.rewriter import Outline, Pausing, outlines, rewrite

_PACKAGE = Path(__file__).parent.parent

_AT_REST = frozenset({"guest.allocator.recount", "guest.allocator.zone"})
"""Modules that look at a zone which nobody touches: they stay as they are."""

LOCK = 0
TOUCH = 1
ATOMIC = 2
RING = 3
SYSTEM_CALL = 4
UNTIL = 5


class Pause(NamedTuple):
    """What an actor is about to do.

    Attributes:
        kind: LOCK, TOUCH, ATOMIC, RING, SYSTEM_CALL or UNTIL.
        word: of LOCK, the lock's word.
        ready: of UNTIL, whether the actor may go on.
    """

    kind: int
    word: int = 0
    ready: Callable[[], bool] = bool


class Edit(NamedTuple):
    """One change that breaks something: in a module, the text (found exactly once after `after`) and its replacement.

    Attributes:
        module: the module below pagetide, such as `guest.isolate`.
        after: text before the place, such as the head of the function.
        old: what is there.
        new: what stands there instead.
    """

    module: str
    after: str
    old: str
    new: str

    def apply(self, source: str) -> str:
        """The edited source."""
        place = source.find(self.after)
        assert place >= 0, f"{self.module} has no {self.after!r}: the edit is out of date"
        place = source.find(self.old, place)
        assert place >= 0, f"{self.module} has no {self.old!r}: the edit is out of date"
        return source[:place] + self.new + source[place + len(self.old) :]


class ExploredError(Exception):
    """An invariant does not hold; the message says which."""


class Control:
    """What the running actor holds, and how long its step may get.

    Attributes:
        held: locks that it holds.
        in_zone: whether the zone lock is one of them.
        fuel: loop turns that are left to this step: a list that became a ring never ends.
    """

    def __init__(self) -> None:
        self.held = 0
        self.in_zone = False
        self.fuel = 0

    def burn(self) -> None:
        """Count a loop turn."""
        self.fuel -= 1
        if self.fuel < 0:
            raise ExploredError("a loop does not end")


@cache
def _source(module: str) -> str:
    return path_of(module).read_text()


def path_of(module: str) -> Path:
    """The file of a module below pagetide."""
    path = _PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


class _Read(NamedTuple):
    """What is to be known of a module before it is made: all worlds of a process read and compile a source once."""

    source: str
    imports: tuple[str, ...]
    outlines: tuple[Outline, ...]


@cache
def _read(module: str, source: str) -> _Read:
    tree = ast.parse(source, str(path_of(module)))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [name.removeprefix("pagetide.") for name in imported if name.startswith("pagetide.")]
    return _Read(source, tuple(ours), outlines(tree))


@cache
def _compiled(module: str, source: str, pausing: Pausing | None, still: frozenset[str]) -> types.CodeType:
    tree = ast.parse(source, str(path_of(module)))
    if pausing is not None:
        rewrite(tree, pausing, still)
    return compile(tree, str(path_of(module)), "exec")


class World:
    """The package's modules once more, over a ground of its own; with `pausing`, as generators."""

    def __init__(
        self,
        ground: dict[str, dict[str, Any]],
        edits: tuple[Edit, ...],
        *,
        pausing: bool,
        still: frozenset[str] = frozenset(),
    ) -> None:
        """Make an empty world.

        Args:
            ground: replacements of what modules define, by module; of those with "*" all that there is.
            edits: changes to the source.
            pausing: whether functions pause; otherwise they are the plain ones.
            still: attributes that could change, and do not in what is explored.
        """
        self.control = Control()
        self._ground, self._edits = ground, edits
        self._modules: dict[str, types.ModuleType] = {}
        self._read: dict[str, _Read] = {}
        self._pausing, self._still = pausing, still
        self._names = Pausing(frozenset(), frozenset())

    def load(self, *names: str) -> list[types.ModuleType]:
        """These modules, with all that they import."""
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in self._read and "*" not in self._ground.get(name, {}):
                self._read[name] = _read(name, self._edited(name))
                waiting += self._read[name].imports
        if self._pausing:
            every = (read.outlines for name, read in self._read.items() if name not in _AT_REST)
            self._names = Pausing.find(itertools.chain.from_iterable(every))
        return [self._module(name) for name in names]

    def _edited(self, name: str) -> str:
        source = _source(name)
        for edit in self._edits:
            if edit.module == name:
                source = edit.apply(source)
        return source

    def _module(self, name: str) -> types.ModuleType:
        if name in self._modules:
            return self._modules[name]
        module = self._modules[name] = types.ModuleType(f"pagetide.{name}")
        ground = self._ground.get(name, {})
        if "*" not in ground:
            read, pauses = self._read[name], self._pausing and name not in _AT_REST
            still = frozenset(attribute for attribute in self._still if attribute in read.source)
            code = _compiled(name, read.source, self._names.among(read.outlines) if pauses else None, still)
            space = module.__dict__
            space["__builtins__"] = {**vars(builtins), "__import__": self._import}
            space.update(_control=self.control, _touch=Pause(TOUCH))
            exec(code, space)  # noqa: S102 - our own source
        module.__dict__.update(ground)
        return module

    def _import(self, name: str, *how: Any) -> Any:
        if name.startswith("pagetide."):
            return self._module(name.removeprefix("pagetide."))
        return __import__(name, *how)
