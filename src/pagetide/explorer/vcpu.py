"""The vCPUs of an explored machine."""

import math
from collections.abc import Generator
from typing import TYPE_CHECKING

from pagetide.explorer.actors import Reporter, Stretch
from pagetide.explorer.source import TOUCH, UNTIL, ExploredError, Pause
from pagetide.guest.allocator.operation import FREE
from pagetide.guest.allocator.zone_layout import ORDER_MASK
from pagetide.guest.vcpu import NO_MEMORY, NOT_HAD
from pagetide.guest.worker import Wait

if TYPE_CHECKING:
    from pagetide.explorer.machine import ExploredMachine

_TOUCH = Pause(TOUCH)


class Vcpu(Reporter):
    """A vCPU with its share of the workload: who runs the steps of guest/vcpu_loop.py, and what these call Operations.

    Attributes:
        loop: a VcpuLoop of the explored package.
        cursor: index of its next operation.
        slots: its blocks.
        waits: whether it waits for memory.
        given_up: how many operations it went on without.
        ended: it is through.
    """

    settles = False
    due_s = 0.0

    def __init__(self, machine: "ExploredMachine", vcpu: int, operations: list[dict[str, int]]) -> None:
        """Take the operations that this vCPU runs."""
        super().__init__(machine, f"vCPU {vcpu}", machine.reporter())
        self.vcpu, self.operations = vcpu, operations
        self.cursor = self.given_up = 0
        self.slots = tuple([-1] * (1 + max((o["slot"] for o in operations), default=0)))
        self.waits = self.ended = False
        self.loop = machine.vcpu_loop(vcpu, self)
        self.then = "go_on"
        self.first = "go_on" if operations else "end"

    def stretch(self, name: str) -> Stretch:
        """Begin this stretch: a step of the loop's, or of the reporter's, or one of its own."""
        return self._step_of_loop(name) if hasattr(self.loop, name) else super().stretch(name)

    def _step_of_loop(self, name: str) -> Stretch:
        machine = self.machine
        try:
            wait = yield from machine.coroutine(getattr(self.loop, name)(0.0))
        except machine.out_of_memory as error:
            raise ExploredError(
                f"a false OOM: {self.name} fails to allocate, and nothing is out for reporting"
            ) from error
        if wait == Wait.REPORT and not machine.design.synchronous:
            raise ExploredError(f"{self.name} waits for the host")
        self.waits = wait == Wait.MEMORY
        return {Wait.OVER: "end", Wait.REPORT: str(self.steps.step), Wait.MEMORY: "wait_memory"}.get(
            wait, str(self.loop.step)
        )

    @property
    def minds_what_came_back(self) -> bool:
        """Whether it makes a difference that something came back since its operation began."""
        return self.waits or not {"run", "relieve", "run_out"}.isdisjoint((self.loop.step, self.loop.then))

    @property
    def left(self) -> int:
        """How many operations are left."""
        return len(self.operations) - self.cursor

    @property
    def order(self) -> int:
        """Of the next one's block."""
        return self.operations[self.cursor]["order"] & ORDER_MASK

    def run_due(self, _now_s: float) -> Generator[Pause, None, int]:
        """Run the next one: all are due, and between two of them a vCPU may stop at any time."""
        machine = self.machine
        slots, cursor = list(self.slots), [self.cursor]
        operation = self.operations[self.cursor]
        if operation["kind"] == FREE and slots[operation["slot"]] != NOT_HAD:
            machine.note_freed(slots[operation["slot"]], operation["order"])
        outcome: int = yield from machine.run_operations(
            machine.words, machine.pages, 0, self.vcpu, self.operations, slots, cursor, self.cursor + 1
        )
        self.slots, self.cursor = tuple(slots), cursor[0]
        if outcome == NO_MEMORY and not machine.scenario.may_run_out:
            raise ExploredError(f"{self.name} fails to allocate")
        return outcome

    def give_up(self) -> None:
        """Go on without the next one's block, which is a false OOM: only `--oom none` has it so."""
        if self.machine.scenario.waits_before_oom:
            raise ExploredError(f"a false OOM: {self.name} fails to allocate, and does not wait for what is out")
        slots = list(self.slots)
        slots[self.operations[self.cursor]["slot"]] = NOT_HAD
        self.slots, self.cursor, self.given_up = tuple(slots), self.cursor + 1, self.given_up + 1

    def wait_memory(self) -> Stretch:
        """Go on once something came back, or sleep until somebody says that it may have."""
        yield _TOUCH
        self.waits = not self.loop.is_back
        self.notified = False
        return "sleep_for_memory" if self.waits else str(self.loop.step)

    def sleep_for_memory(self) -> Stretch:
        """Nothing came back yet; where nobody says so, it looks every so often."""
        looks_again = self.machine.in_flight.look_again_s < math.inf
        yield Pause(UNTIL, ready=lambda: self.notified or (looks_again and self.loop.is_back))
        return "wait_memory"

    def end(self) -> Stretch:
        """Do nothing more."""
        yield from ()
        self.ended = True
        return None
