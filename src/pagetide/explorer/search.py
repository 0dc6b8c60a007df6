"""Runs every interleaving of two vCPUs, the reporter and the device over a tiny guest, and checks each state (S6).

Prior art: explicit-state model checking (SPIN, TLC) and stateless exploration of real code (VeriSoft, CHESS). Here the
code is the real one (source.py) and the search is explicit: breadth first, so that the first violation found
has the shortest sequence of steps. A generator cannot be copied; a state therefore keeps, for each actor, the states at
which the steps of its present stretch began. Who is the first to step an actor from there goes on with its generator;
for all others the stretch runs again up to where it was.

Checked in every state: invariants 1 to 4 of the design (stamps, one place for each page, no more isolated than a batch
has, no lock across a kick or a system call, no vCPU that waits for the host unless the design is synchronous) and 5 (an
allocation that fails finds something out that it can wait for). Where nothing can happen any more: 6, nothing is lost,
and nobody waits for ever. And from every state such an end must be reachable: no livelock.

Explored is sequentially consistent memory, and time that passes whenever somebody waits for it.
"""

import linecache
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from pagetide.explorer import machine as explored
from pagetide.explorer.machine import ExploredMachine
from pagetide.explorer.scenario import Scenario
from pagetide.explorer.source import LOCK, TOUCH, UNTIL, Edit, ExploredError, Pause
from pagetide.explorer.state.frames import frames_of
from pagetide.explorer.state.whole import AT_THE_RING, State

_FUEL = 1000
_SETTLE_STEPS_MAX = 1000
_AT_THE_RING = AT_THE_RING | {"wait_call"}
_Running = Generator[Pause, None, str | None]
_NOWHERE = (0, -1, ("", 0))  # from the first node, and nobody has stepped


class Position(NamedTuple):
    """Where an actor is.

    Attributes:
        stretch: what it runs; None at its end.
        passed: the stretches right before it, which ended without a pause.
        log: the states at which the first of these, and each of the stretch's steps after its first, began.
        frames: the lines where it is, and the values of its variables.
        pause: what it is about to do.
        held: how many locks it holds.
        in_zone: whether the zone lock is one of them.
        paused: the stretch itself, where it stands there, until somebody goes on with it; then nothing.
    """

    stretch: str | None
    passed: tuple[str, ...]
    log: tuple[State, ...]
    frames: tuple[Any, ...]
    pause: Pause
    held: int
    in_zone: bool
    paused: list[_Running]


class _Node(NamedTuple):
    number: int
    state: State
    positions: tuple[Position, ...]


class Exploration(NamedTuple):
    """What was found.

    Attributes:
        design: what was explored.
        states: different states seen.
        transitions: steps taken from them.
        ends: states in which nothing can happen any more.
        seconds: how long it took.
        complete: whether every state was seen, unless a violation ended the search.
        violation: which invariant does not hold, or None.
        steps: the steps that lead there.
    """

    design: str
    states: int
    transitions: int
    ends: int
    seconds: float
    complete: bool
    violation: str | None
    steps: tuple[str, ...]


class Explorer:
    """One exploration."""

    def __init__(self, design: str, scenario: Scenario, edits: tuple[Edit, ...] = (), *, reduces: bool = True) -> None:
        """Build the machine, as `edits` make it.

        Args:
            design: its name.
            scenario: what happens in it.
            edits: changes to the source.
            reduces: whether to explore only one of the orders in which ring and zone steps commute.
        """
        self._design, self._reduces = design, reduces
        self._machine = ExploredMachine(design, scenario, edits)
        self._numbers: dict[Any, int] = {}
        self._came_from: list[tuple[int, int, Any]] = []
        self._before: list[list[int]] = []
        self._waiting: OrderedDict[int, _Node] = OrderedDict()
        self._ends: list[int] = []
        self._transitions = 0
        self._at = _NOWHERE

    def run(self, states_max: int, progress: Callable[[int], None] = lambda _: None) -> Exploration:
        """Explore until every state was seen, there are too many of them, or an invariant does not hold."""
        start_s = time.monotonic()
        violation: str | None = None
        steps: tuple[str, ...] = ()
        try:
            self._add_first()
            while self._waiting and len(self._numbers) <= states_max:
                self._expand(self._waiting.popitem(last=False)[1])
                if self._transitions % 1000 == 0:
                    progress(len(self._numbers))
            if not self._waiting:
                self._check_that_ends_are_reached()
        except Exception as error:
            violation = str(error) if isinstance(error, ExploredError) else f"{type(error).__name__}: {error}"
            steps = self._trace()
        counts = (len(self._numbers), self._transitions, len(self._ends), time.monotonic() - start_s)
        return Exploration(self._design, *counts, not self._waiting, violation, steps)

    def _add_first(self) -> None:
        positions = tuple([self._start(actor, actor.first) for actor in self._machine.actors])
        node = _Node(0, self._machine.capture(), positions)
        if self._machine.scenario.settled:
            node = self._settle(node)
        self._add(node.state, node.positions)

    def _settle(self, node: _Node) -> _Node:
        """Let reporter and device run, one after the other, until neither can."""
        steps = [index for index, actor in enumerate(self._machine.actors) if actor.settles]
        for _ in range(_SETTLE_STEPS_MAX):
            self._machine.restore(node.state)
            able = [index for index in steps if self._is_able(node.positions[index])]
            if not able:
                break
            node = self._after(node, able[0])
        return node

    def _start(self, actor: Any, stretch: str | None) -> Position:
        """Begin stretches until one pauses."""
        state = self._machine.capture() if stretch is not None else None
        passed: tuple[str, ...] = ()
        while stretch is not None:
            generator = actor.stretch(stretch)
            try:
                pause = next(generator)
            except StopIteration as end:
                passed, stretch = (*passed, stretch), end.value
                continue
            return self._position(generator, stretch, passed, (state,), pause)
        return Position(None, (), (), (), Pause(UNTIL), 0, False, [])

    def _position(
        self, generator: _Running, stretch: str | None, passed: tuple[str, ...], log: tuple[Any, ...], pause: Pause
    ) -> Position:
        control = self._machine.control
        return Position(stretch, passed, log, frames_of(generator), pause, control.held, control.in_zone, [generator])

    def _add(self, state: State, positions: tuple[Position, ...]) -> None:
        key = (state, tuple([(position.stretch, position.frames) for position in positions]))
        number = self._numbers.get(key)
        if number is not None:
            self._before[number].append(self._at[0])
            if (known := self._waiting.get(number)) is not None:
                known.positions[self._at[1]].paused.extend(positions[self._at[1]].paused)
            return
        number = self._numbers[key] = len(self._came_from)
        self._came_from.append(self._at)
        self._before.append([self._at[0]])
        self._machine.checks.state(at_rest=not any(position.pause.kind == TOUCH for position in positions))
        self._waiting[number] = _Node(number, state, positions)

    def _expand(self, node: _Node) -> None:
        machine = self._machine
        machine.restore(node.state)
        able = [index for index, position in enumerate(node.positions) if self._is_able(position)]
        if self._reduces:
            able = self._at_the_ring(node, able) or able
        if not able:
            self._at = (node.number, *_NOWHERE[1:])
            machine.checks.end()
            self._ends.append(node.number)
        for index in able:
            position = node.positions[index]
            self._at = (node.number, index, position.frames[-1][:2])
            self._transitions += 1
            after = self._after(node, index)
            self._add(after.state, after.positions)

    def _after(self, node: _Node, index: int) -> _Node:
        """Where a step of this actor leads."""
        stepped = self._step(node, index, node.positions[index])
        positions = (*node.positions[:index], stepped, *node.positions[index + 1 :])
        return _Node(-1, self._machine.capture(), positions)

    def _at_the_ring(self, node: _Node, able: list[int]) -> list[int]:
        """Who alone needs to be stepped, since what they do next commutes with all that others can do before.

        Nobody but the device and the one who reports touches the ring: others cannot until the batch is back. So while
        both are at the ring (or wait there), their steps and the others' may come in any order. A punched hole is
        no such step: whether it commutes is what is to be found out.
        """
        reporting = [i for i, position in enumerate(node.positions) if position.stretch in _AT_THE_RING]
        if not reporting:
            return []
        group = [*reporting, len(node.positions) - 1]
        assert len(group) == 2
        if any(node.positions[index].frames[-1][0] == explored.__file__ for index in group):
            return []
        return [index for index in able if index in group]

    def _is_able(self, position: Position) -> bool:
        if position.stretch is None:
            return False
        pause = position.pause
        if pause.kind == LOCK:
            return self._machine.words[pause.word] == 0
        return pause.kind != UNTIL or pause.ready()

    def _step(self, node: _Node, index: int, position: Position) -> Position:
        machine, actor = self._machine, self._machine.actors[index]
        control = machine.control
        generator = position.paused.pop() if position.paused else self._again(actor, position)
        control.held, control.in_zone = position.held, position.in_zone
        machine.restore(node.state)
        control.fuel = _FUEL
        try:
            pause = next(generator)
        except StopIteration as end:
            return self._start(actor, end.value)
        return self._position(generator, position.stretch, position.passed, (*position.log, node.state), pause)

    def _again(self, actor: Any, position: Position) -> _Running:
        """The stretch once more from where it began to where it stands: somebody else went on with the first one."""
        control = self._machine.control
        control.held, control.in_zone, control.fuel = 0, False, _FUEL
        self._machine.restore(position.log[0])
        for stretch in position.passed:
            stops = next(actor.stretch(stretch), None)
            assert stops is None
        generator: _Running = actor.stretch(position.stretch)
        next(generator)
        for state in position.log[1:]:
            self._machine.restore(state)
            control.fuel = _FUEL
            next(generator)
        return generator

    def _check_that_ends_are_reached(self) -> None:
        """From every state there must be a way to an end.

        Raises:
            ExploredError: there is a state without one.
        """
        reached = set(self._ends)
        waiting = list(self._ends)
        while waiting:
            for before in self._before[waiting.pop()]:
                if before not in reached:
                    reached.add(before)
                    waiting.append(before)
        if len(reached) < len(self._came_from):
            first = next(number for number in range(len(self._came_from)) if number not in reached)
            self._at = (first, *_NOWHERE[1:])
            raise ExploredError("a livelock: from here on nobody ever comes to rest")

    def _trace(self) -> tuple[str, ...]:
        """The steps that led to where the search is."""
        steps = []
        at = self._at
        while True:
            if at[1] >= 0:
                steps.append(_sentence(self._machine.actors[at[1]].name, *at[2]))
            if at[0] == 0:
                return tuple(reversed(steps))
            at = self._came_from[at[0]]


def _sentence(actor: str, path: str, line: int) -> str:
    where = "/".join(path.rsplit("/", 2)[1:])
    return f"{actor:<9} {where}:{line}: {linecache.getline(path, line).strip()}"
