"""What must hold of an explored machine: in every state, of every page that is discarded, and at the end."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pagetide.explorer import balloon as explorer_balloon
from pagetide.explorer.ground import FRAME_ORDER
from pagetide.explorer.source import ExploredError
from pagetide.explorer.state.whole import HINTS_SEEN_MAX, MachineState
from pagetide.guest.allocator.zone import cool_ticks
from pagetide.guest.allocator.zone_layout import (
    ALLOCATED,
    BALLOON,
    BUDDY,
    DROPPED_PAGES,
    FALSE_OOMS,
    HINT_COUNT,
    ISOLATED,
    ISOLATED_BLOCKS,
    KEEP_APART,
    KEEP_MARKS,
    MIGRATETYPE_SHIFT,
    ORDER_MASK,
    PAGEBLOCKS,
    PCP_COUNT,
    PCP_LOCK,
    RECORD_WORDS,
    REPORTED,
    REPORTED_PAGES,
    REPORTING_ORDER,
    STAMP_ERRORS,
    STATE,
    TICK,
    TYPE_MASK,
    ZONE_LOCK,
    vcpu_base,
)
from pagetide.memory.frame_table import FRAMES, STATE_MASK, TAKEN

if TYPE_CHECKING:
    from pagetide.explorer.machine import ExploredMachine


class Checks:
    """The invariants of one machine; all raise ExploredError, which says what does not hold."""

    def __init__(self, machine: "ExploredMachine", zone: Any, state: MachineState) -> None:
        """Take the machine.

        Args:
            machine: whose invariants they are.
            zone: an ordinary Zone of the same size, to put its contents into.
            state: knows which words can change.
        """
        self._machine, self._zone, self._state = machine, zone, state
        zone.words[:] = machine.words
        self._sound: set[Any] = set()
        self._reporting_order = machine.words[REPORTING_ORDER]
        self._cool_ticks = cool_ticks(machine.scenario.settings.cool_s)

    def state(self, *, at_rest: bool) -> None:
        """Check what holds always; with `at_rest`, when nobody is about to touch the zone, recount it as well."""
        machine, words = self._machine, self._machine.words
        vcpus = range(len(machine.vcpus))
        for vcpu in vcpus:
            if words[vcpu_base(vcpu) + STAMP_ERRORS]:
                raise ExploredError(f"vCPU {vcpu} found a page of its own without its stamp")
            assert words[vcpu_base(vcpu) + HINT_COUNT] <= HINTS_SEEN_MAX
        if machine.balloons:
            explorer_balloon.check_held(machine)
        if words[ISOLATED_BLOCKS] > machine.scenario.settings.capacity:
            raise ExploredError(f"{words[ISOLATED_BLOCKS]} blocks are isolated, and a batch has fewer")
        locks = [ZONE_LOCK, *(vcpu_base(vcpu) + PCP_LOCK for vcpu in vcpus)]
        starting = any(
            steps.step == "switch_on" for steps in machine.reporters
        )  # records are made step by step of what is free already
        if at_rest and not starting and not any(words[lock] for lock in locks):
            self._recount()

    def _recount(self) -> None:
        state = self._state.zone_state(), tuple(self._machine.ram.first_words)
        if state in self._sound:
            return
        self._fill_zone()
        try:
            self._zone.check()
        except AssertionError as error:
            raise ExploredError(f"the zone is not sound: {error}") from error
        self._check_marks()
        self._sound.add(state)

    def _check_marks(self) -> None:
        """What is marked Reported has been discarded, and was not touched since."""
        for block in self._zone.blocks():
            pages = range(block.pfn, block.pfn + (1 << block.order))
            if block.reported and any(self._machine.ram.first_words[page] for page in pages):
                raise ExploredError(f"the block at frame {block.pfn} is marked Reported and was not discarded")

    def _fill_zone(self) -> None:
        self._state.fill(self._zone.words)
        self._zone.pages[:] = self._machine.pages

    def watched(self, take_block: Callable[..., Any]) -> Callable[..., Any]:
        """The zone's `take_block`, which fails where marks keep blocks apart and it takes one that it should not.

        With migratetypes a type's own reported blocks go before another type's unreported ones.
        """
        machine = self._machine

        def take(words: Any, pages: Any, order: int, state: int) -> Any:
            others = self._fits_unreported(order, state >> MIGRATETYPE_SHIFT)
            reported = words[REPORTED_PAGES]
            pfn = yield from machine.coroutine(take_block(words, pages, order, state))
            if words[KEEP_MARKS] == KEEP_APART and others and words[REPORTED_PAGES] < reported:
                raise ExploredError("a reported block is allocated, though an unreported one would do")
            return pfn

        return take

    def _fits_unreported(self, order: int, migratetype: int) -> bool:
        """Whether an unreported free block of the type would serve an allocation of this order."""
        machine = self._machine
        words, pages = machine.words, machine.pages
        for page in range(machine.scenario.nr_pages):
            state = pages[page * RECORD_WORDS + STATE]
            if state & TYPE_MASK == BUDDY and not state & REPORTED and state & ORDER_MASK >= order:
                pageblocks = words[PAGEBLOCKS]
                if not pageblocks or words[pageblocks + (page >> FRAME_ORDER)] == migratetype:
                    return True
        return False

    def discarded(self, page: int) -> None:
        """Check that a page may be discarded now."""
        machine, kind = self._machine, self._kind_of(page)
        wanted, name = (BALLOON, "for the balloon") if machine.balloons else (ISOLATED, "isolated")
        if machine.takes_frames:
            wanted, name = BUDDY, "free"
        if kind != wanted:
            what = "while it is allocated" if kind == ALLOCATED else f"while it is not {name}"
            raise ExploredError(f"page {page} is discarded {what}")
        free_ticks = machine.words[TICK] - machine.ram.freed_at[page]
        if not machine.balloons and free_ticks < self._cool_ticks:
            raise ExploredError(f"page {page} is discarded {free_ticks} ticks after it was freed, too early")
        if machine.balloons and machine.ram.inflated[page]:
            raise ExploredError(f"page {page} is inflated again before the host was told that it was deflated")

    def _kind_of(self, page: int) -> int:
        machine = self._machine
        for order in range(machine.scenario.order_max + 1):
            state = machine.pages[(page & ~((1 << order) - 1)) * RECORD_WORDS + STATE]
            if state & TYPE_MASK and state & ORDER_MASK >= order:
                return state & TYPE_MASK
        return 0

    def end(self) -> None:
        """Check what holds once nothing can happen any more: nobody waits for ever, and nothing is lost."""
        machine = self._machine
        waiting = [vcpu.name for vcpu in machine.vcpus if not vcpu.ended]
        if machine.reporting.batches_begun != machine.reporting.batches_done:
            waiting.append("reporter")
        if waiting:
            raise ExploredError(f"a deadlock: {' and '.join(waiting)} cannot go on")
        if not machine.reporting.on:
            raise ExploredError("the design is switched off for good")
        self._check_vcpus()
        if machine.words[REPORTING_ORDER] != self._reporting_order:
            raise ExploredError("the design is believed to be on, and the zone asks for nothing")
        if machine.balloons:
            explorer_balloon.check_end(machine)
        self._fill_zone()
        if machine.takes_frames:
            self._check_frames()
        if self._zone.words[REPORTING_ORDER] <= machine.scenario.order_max:
            self._check_lost()

    def _check_vcpus(self) -> None:
        """No vCPU that is through keeps pages to itself, and what one went on without was counted."""
        machine, words = self._machine, self._machine.words
        for vcpu in machine.vcpus:
            if listed := words[vcpu_base(vcpu.vcpu) + PCP_COUNT]:
                raise ExploredError(f"{vcpu.name} is idle, and keeps {listed} pages to itself")
        given_up = sum(vcpu.given_up for vcpu in machine.vcpus)
        if given_up != words[FALSE_OOMS]:
            raise ExploredError(f"{given_up} allocations failed falsely, and {words[FALSE_OOMS]} were counted")

    def _check_frames(self) -> None:
        """All that is free was taken, and what was taken has been discarded."""
        machine = self._machine
        for frame in range(machine.frames):
            pages = range(frame << FRAME_ORDER, (frame + 1) << FRAME_ORDER)
            state = machine.table[FRAMES + frame] & STATE_MASK
            free = all(self._kind_of(page) == BUDDY for page in pages)
            if free != (state == TAKEN):
                raise ExploredError(f"frame {frame} is {'free' if free else 'not free'}, and its state is {state}")
            if state == TAKEN and any(machine.ram.first_words[page] for page in pages):
                raise ExploredError(f"frame {frame} is TAKEN and was not discarded")

    def _check_lost(self) -> None:
        design, order, zone = self._machine.design, self._machine.scenario.settings.order, self._zone
        unreported = [b for b in zone.blocks() if b.kind == BUDDY and b.order >= order and not b.reported]
        unreported.sort(key=lambda block: -block.order)
        lost = unreported[design.leftover_blocks_max :]
        dropped = int(zone.words[DROPPED_PAGES]) if design.drops_hints else 0
        if sum(1 << block.order for block in lost) > dropped:
            frames = ", ".join(f"{b.pfn} (order {b.order})" for b in lost)
            raise ExploredError(f"never reported: the free blocks at frames {frames}")
