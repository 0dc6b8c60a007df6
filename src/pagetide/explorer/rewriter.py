"""Turns functions into generators that pause: what source.py says, done to a syntax tree."""

import ast
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_SETTINGS = frozenset({
    "NR_PAGES", "NR_VCPUS", "REPORTING_ORDER", "WMARK_MIN", "WMARK_LOW", "WMARK_HIGH", "PCP_BATCH", "PCP_HIGH",
    "PCP_ORDERS", "PCP_HIGH_MAX", "PAGEBLOCKS", "TYPED_PCP_ORDERS",
    "NOTIFY_SPLITS", "KEEP_MARKS", "RECORDING", "WAKE_BLOCKS", "COOL_TICKS", "IN_FLIGHT_MAX_PAGES",
    "HINTS_MAX", "SYNC_HINTS", "HOLDS_TIMED", "WALKED_BLOCKS", "KICKS",
    "PASSES", "IDLE_PASSES",
})  # fmt: skip
"""Words that do not change while a design is on, and those that only count."""

_SHARED = frozenset({"words", "pages"})
_SHARED_ATTRIBUTES = frozenset({
    "_relieved", "held_pages", "was_woken", "wanted_on", "ring_full", "batches_begun", "batches_done",
    "begun", "ended", "pages_out",
})  # fmt: skip
"""Of a design or its worker, what one thread writes and another reads; and properties that read such things."""

_OWN = frozenset({"stamp_block", "check_block", "place_of"})
"""Functions that touch only what belongs to the block's owner, or what does not change."""

_PRIMITIVES = frozenset({
    "lock", "atomic_load", "atomic_store", "atomic_add", "atomic_exchange", "atomic_compare_exchange",
    "load_u16", "load_u16_acquire", "store_u16", "store_u16_release", "punch_hole",
})  # fmt: skip
_METHODS = frozenset({"kick", "ring", "tell", "start", "stop", "woken", "next_batch", "done", "run_due"})
"""What pauses in some design or machine, and so is taken to in each."""


def _is_shared(node: ast.AST) -> bool:
    """Whether this is an element of the zone's arrays that others may change, or such an attribute."""
    if isinstance(node, ast.Attribute):
        return node.attr in _SHARED_ATTRIBUTES
    if not isinstance(node, ast.Subscript):
        return False
    array = node.value
    name = array.id if isinstance(array, ast.Name) else array.attr if isinstance(array, ast.Attribute) else ""
    return name in _SHARED and not (isinstance(node.slice, ast.Name) and node.slice.id in _SETTINGS)


def _touched(*nodes: ast.AST | None) -> Iterator[ast.AST]:
    return (inner for node in nodes if node is not None for inner in ast.walk(node) if _is_shared(inner))


def _touches(*nodes: ast.AST | None) -> bool:
    return any(True for _ in _touched(*nodes))


def _is_of_vcpu(node: ast.AST) -> bool:
    """Whether this is a word of a vCPU's own block, which its list's lock guards."""
    slices = node.slice if isinstance(node, ast.Subscript) else node
    return any(isinstance(inner, ast.Name) and inner.id in ("base", "lists") for inner in ast.walk(slices))


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


class Outline(NamedTuple):
    """What decides whether a function pauses.

    Attributes:
        name: its name.
        is_method: whether it is one.
        touches: whether it touches shared state itself.
        calls: names of what it calls, and whether as a method.
    """

    name: str
    is_method: bool
    touches: bool
    calls: frozenset[tuple[str, bool]]


def outlines(tree: ast.Module) -> tuple[Outline, ...]:
    """Those of a module's functions that may pause."""
    return tuple(
        Outline(
            function.name,
            is_method,
            function.name not in _OWN and _touches(*function.body),
            frozenset(filter(None, map(_called, ast.walk(function)))),
        )
        for function, is_method in _functions(tree)
    )


class Pausing(NamedTuple):
    """Names of what pauses."""

    functions: frozenset[str]
    methods: frozenset[str]

    def calls(self, node: ast.AST) -> bool:
        """Whether this is a call of something that pauses."""
        called = _called(node)
        return called is not None and called[0] in (self.methods if called[1] else self.functions)

    def among(self, outlines: Iterable[Outline]) -> "Pausing":
        """What of it these functions are or call: all that matters to how they are rewritten."""
        mine = {*self.functions, *self.methods}
        named = {name for one in outlines for name in (one.name, *(called for called, _ in one.calls)) if name in mine}
        return Pausing(self.functions & named, self.methods & named)

    @classmethod
    def find(cls, every: Iterable[Outline]) -> "Pausing":
        """All functions that touch shared state or call, by name, one that does."""
        pausing = {*((name, False) for name in _PRIMITIVES), *((name, True) for name in _METHODS)}
        left = list(every)
        grows = True
        while grows:
            found = {(one.name, one.is_method) for one in left if one.touches or one.calls & pausing}
            grows = not found <= pausing
            pausing |= found
        return cls(*(frozenset(name for name, is_method in pausing if is_method is each) for each in (False, True)))


class _Rewriter(ast.NodeTransformer):
    """Turns one function into a generator."""

    def __init__(self, pausing: Pausing, own: bool, still: frozenset[str]) -> None:
        self._pausing, self._own, self._still = pausing, own, still
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
        touched = [node for node in _touched(*nodes) if getattr(node, "attr", None) not in self._still]
        if self._own or not touched:
            return []
        guarded = "_control.held" if all(map(_is_of_vcpu, touched)) else "_control.in_zone"
        return _made(f"if not {guarded}:\n yield _touch")

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
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript) and self._pause(node.target):
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


def rewrite(tree: ast.Module, pausing: Pausing, still: frozenset[str]) -> None:
    """Turn a module's functions that pause into generators, in place; attributes in `still` do not change meanwhile."""
    for function, is_method in _functions(tree):
        if function.name in (pausing.methods if is_method else pausing.functions):
            last = _made("if False:\n yield")
            function.body = [*_Rewriter(pausing, function.name in _OWN, still).body(function.body), *last]
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
