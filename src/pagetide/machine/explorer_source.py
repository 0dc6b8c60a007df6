"""The guest's and the host's own source, made to give way before everything that another processor could notice.

An explorer must be able to stop an actor between any two steps, and a compiled kernel cannot be stopped. So the very
files that run elsewhere are read again here, and each function that touches shared state is turned into a generator
that yields a *pause* right before

- taking a lock;
- each atomic on REQUEST or WAKE, also under the lock;
- when the ring is what is explored, each load and store of its indices and events;
- a kick, and a call that punches a hole;
- each statement that reads or writes the zone's words or page records while the actor holds no lock. `+=` is a read
  and a write. Settings, which do not change while a design is on, and the words that are a vCPU's own, do not count.

What runs between two pauses is one step. Under a lock everything else is one step, which is exact as long as whoever
touches a zone's state holds its lock; who does not is stopped at each statement.

A variant is the same source with one edit, `Edit`. Nothing is written anew except the ground: atomics and RAM.
"""

import ast
import builtins
import types
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_PACKAGE = Path(__file__).parent.parent

SETTINGS = frozenset({
    "NR_PAGES", "NR_VCPUS", "REPORTING_ORDER", "WMARK_MIN", "WMARK_LOW", "WMARK_HIGH", "PCP_BATCH", "PCP_HIGH",
    "NOTIFY_SPLITS", "KEEP_MARKS", "RECORDING", "WAKE_BLOCKS", "TICK", "COOL_TICKS", "IN_FLIGHT_MAX_PAGES",
    "HINTS_MAX", "SYNC_HINTS", "HOLDS_TIMED", "WALKED_BLOCKS", "KICKS",
    "PASSES", "IDLE_PASSES",
})  # fmt: skip
"""Words that do not change while a design is on, and those that only count."""

_SHARED = frozenset({"words", "pages"})
_SHARED_ATTRIBUTES = frozenset({"_relieved", "held_pages"})
"""Of a design, what a vCPU's thread writes as well as the worker's; and a property that reads the zone's words."""

_OWN = frozenset({"stamp_block", "check_block"})
"""Functions that touch only what belongs to the block's owner."""

_AT_REST = frozenset({"guest.zone"})
"""Modules that look at a zone which nobody touches: they stay as they are."""

_PRIMITIVES = frozenset({
    "lock", "atomic_load", "atomic_store", "atomic_add", "atomic_exchange", "atomic_compare_exchange",
    "load_u16", "load_u16_acquire", "store_u16", "store_u16_release", "punch_hole",
})  # fmt: skip
_METHODS = frozenset({"kick"})

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
        fuel: loop turns that are left to this step: a list that became a ring never ends.
    """

    def __init__(self) -> None:
        self.held = 0
        self.fuel = 0

    def burn(self) -> None:
        """Count a loop turn."""
        self.fuel -= 1
        if self.fuel < 0:
            raise ExploredError("a loop does not end")


def _is_shared(node: ast.AST) -> bool:
    """Whether this is an element of the zone's arrays that others may change, or such an attribute."""
    if isinstance(node, ast.Attribute):
        return node.attr in _SHARED_ATTRIBUTES
    if not isinstance(node, ast.Subscript):
        return False
    array = node.value
    name = array.id if isinstance(array, ast.Name) else array.attr if isinstance(array, ast.Attribute) else ""
    return name in _SHARED and not (isinstance(node.slice, ast.Name) and node.slice.id in SETTINGS)


def _touches(*nodes: ast.AST | None) -> bool:
    return any(_is_shared(inner) for node in nodes if node is not None for inner in ast.walk(node))


def _called(node: ast.AST) -> tuple[str, bool] | None:
    """Name of what is called, and whether as a method."""
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name):
        return node.func.id, False
    return (node.func.attr, True) if isinstance(node.func, ast.Attribute) else None


def _functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, bool]]:
    """The functions and methods that may pause; properties and what Python itself calls cannot."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node, False
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                special = isinstance(inner, ast.FunctionDef) and inner.name.startswith("__")
                if isinstance(inner, ast.FunctionDef) and not special and not _is_property(inner):
                    yield inner, True


def _is_property(function: ast.FunctionDef) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "property" for node in function.decorator_list)


class _Pausing(NamedTuple):
    """Names of what pauses."""

    functions: set[str]
    methods: set[str]

    def calls(self, node: ast.AST) -> bool:
        called = _called(node)
        return called is not None and called[0] in (self.methods if called[1] else self.functions)

    @classmethod
    def find(cls, trees: list[ast.Module]) -> "_Pausing":
        """All functions that touch shared state or call, by name, one that does."""
        pausing = cls(set(_PRIMITIVES), set(_METHODS))
        every = [found for tree in trees for found in _functions(tree)]
        grows = True
        while grows:
            grows = False
            for function, is_method in every:
                names = pausing.methods if is_method else pausing.functions
                if function.name in names:
                    continue
                own = function.name not in _OWN and _touches(*function.body)
                if own or any(pausing.calls(node) for node in ast.walk(function)):
                    names.add(function.name)
                    grows = True
        return pausing


class _Rewriter(ast.NodeTransformer):
    """Turns one function into a generator."""

    def __init__(self, pausing: _Pausing, own: bool) -> None:
        self._pausing, self._own = pausing, own
        self._names = 0
        self._keeps_results = False

    def body(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        made = []
        for old in statements:
            for new in self._statement(old):
                _place(new, old)
                made.append(new)
        return made

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if not self._pausing.calls(node):
            return node
        if not self._keeps_results:
            return ast.YieldFrom(node)
        # The result gets a name, so that it is part of the state while the rest of the statement pauses.
        return ast.NamedExpr(ast.Name(self._name(), ast.Store()), ast.YieldFrom(node))

    def _expression(self, node: Any) -> Any:
        self._keeps_results = sum(map(self._pausing.calls, ast.walk(node))) > 1
        return self.visit(node)

    def _name(self) -> str:
        self._names += 1
        return f"_result_{self._names}"

    def _pause(self, *nodes: ast.AST | None) -> list[ast.stmt]:
        if self._own or not _touches(*nodes):
            return []
        return _made("if _control.held == 0:\n yield _touch")

    def _statement(self, node: ast.stmt) -> list[ast.stmt]:
        if isinstance(node, ast.While):
            assert not node.orelse
            test = ast.If(ast.UnaryOp(ast.Not(), self._expression(node.test)), [ast.Break()], [])
            start = [*_made("_control.burn()"), *self._pause(node.test), test]
            return [ast.While(ast.Constant(True), [*start, *self.body(node.body)], [])]
        if isinstance(node, ast.If):
            return self._if(node)
        if isinstance(node, ast.For):
            new = ast.For(node.target, self._expression(node.iter), self.body(node.body), self.body(node.orelse))
            return [*self._pause(node.iter), new]
        if isinstance(node, ast.AugAssign) and _is_shared(node.target) and not self._own:
            return self._read_and_write(node)
        assert not isinstance(node, ast.With | ast.Try), f"line {node.lineno}: the explorer knows no such statement yet"
        pause = self._pause(node)
        return [*pause, self._expression(node)]

    def _if(self, node: ast.If) -> list[ast.stmt]:
        if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And) and not node.orelse:
            inner: list[ast.stmt] = node.body
            for test in reversed(node.test.values):
                inner = [ast.copy_location(ast.If(test, inner, []), test)]
            first = inner[0]
            assert isinstance(first, ast.If)
            node = first
        pause = self._pause(node.test)
        return [*pause, ast.If(self._expression(node.test), self.body(node.body), self.body(node.orelse))]

    def _read_and_write(self, node: ast.AugAssign) -> list[ast.stmt]:
        pause, name = self._pause(node), self._name()
        target = node.target
        assert isinstance(target, ast.Subscript)
        read = ast.Assign([ast.Name(name, ast.Store())], ast.Subscript(target.value, target.slice, ast.Load()))
        value = ast.BinOp(ast.Name(name, ast.Load()), node.op, self._expression(node.value))
        return [*pause, read, *pause, ast.Assign([target], value)]


def _rewrite(tree: ast.Module, pausing: _Pausing) -> None:
    for function, is_method in _functions(tree):
        if function.name in (pausing.methods if is_method else pausing.functions):
            last = _made("if False:\n yield")
            function.body = [*_Rewriter(pausing, function.name in _OWN).body(function.body), *last]
            _place(function, function)


def _made(source: str) -> list[ast.stmt]:
    """Statements without a place."""
    body = ast.parse(source).body
    for statement in body:
        for node in ast.walk(statement):
            for name in ("lineno", "end_lineno", "col_offset", "end_col_offset"):
                node.__dict__.pop(name, None)
    return body


def _place(new: ast.AST, old: ast.AST) -> None:
    """Put what was made for a statement at its line, for the trace."""
    for node in ast.walk(new):
        if "lineno" not in node.__dict__ and "lineno" in node._attributes:
            ast.copy_location(node, old)


@cache
def _source(module: str) -> str:
    return path_of(module).read_text()


def path_of(module: str) -> Path:
    """The file of a module below pagetide."""
    path = _PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


class World:
    """The package's modules once more, over a ground of its own; with `pausing`, as generators."""

    def __init__(self, ground: dict[str, dict[str, Any]], edits: tuple[Edit, ...], *, pausing: bool) -> None:
        """Make an empty world.

        Args:
            ground: replacements of what modules define, by module; of those with "*" all that there is.
            edits: changes to the source.
            pausing: whether functions pause; otherwise they are the plain ones.
        """
        self.control = Control()
        self._ground, self._edits = ground, edits
        self._modules: dict[str, types.ModuleType] = {}
        self._trees: dict[str, ast.Module] = {}
        self._pausing = pausing
        self._names = _Pausing(set(), set())

    def load(self, *names: str) -> list[types.ModuleType]:
        """These modules, with all that they import."""
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in self._trees and "*" not in self._ground.get(name, {}):
                self._trees[name] = tree = ast.parse(self._edited(name), str(path_of(name)))
                waiting += self._imports(tree)
        if self._pausing:
            self._names = _Pausing.find([tree for name, tree in self._trees.items() if name not in _AT_REST])
        return [self._module(name) for name in names]

    def _edited(self, name: str) -> str:
        source = _source(name)
        for edit in self._edits:
            if edit.module == name:
                source = edit.apply(source)
        return source

    @staticmethod
    def _imports(tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pagetide."):
                yield (node.module or "").removeprefix("pagetide.")

    def _module(self, name: str) -> types.ModuleType:
        if name in self._modules:
            return self._modules[name]
        module = self._modules[name] = types.ModuleType(f"pagetide.{name}")
        ground = self._ground.get(name, {})
        if "*" not in ground:
            tree = self._trees[name]
            if self._pausing and name not in _AT_REST:
                _rewrite(tree, self._names)
            space = module.__dict__
            space["__builtins__"] = {**vars(builtins), "__import__": self._import}
            space.update(_control=self.control, _touch=Pause(TOUCH))
            exec(compile(tree, str(path_of(name)), "exec"), space)  # noqa: S102 - our own source
        module.__dict__.update(ground)
        return module

    def _import(self, name: str, *how: Any) -> Any:
        if name.startswith("pagetide."):
            return self._module(name.removeprefix("pagetide."))
        return __import__(name, *how)
