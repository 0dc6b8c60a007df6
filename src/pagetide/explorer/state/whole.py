"""All of an explored machine's state, as one value that can be compared, kept and set again.

Two states that nobody could tell apart are made equal: per-CPU lists begin where their rings do; what is beyond their
end, or that of hints or spares, is zeroed; of a page's generation only counts whether the page bears its stamp, of a
frame table's counters only whether a batch is under way; and rings with nothing in them and nobody at them are as they
were at first, except for when the driver wants to be called.
"""

import itertools
from collections.abc import Iterator
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from pagetide.explorer.ground import FRAME_ORDER
from pagetide.explorer.state.attributes import Attributes, StepsAttributes, Things, objects_of
from pagetide.guest.allocator.zone_layout import (
    BALLOON_PAGES,
    END,
    FALSE_OOMS,
    FRAME_TABLE,
    FREE_PAGES,
    GENERATION,
    HINT_BLOCKS,
    HINT_COUNT,
    HINTS,
    ISOLATED_BLOCKS,
    LIST_WORDS,
    MAP_BASE,
    MIGRATETYPES,
    NOTIFY_SPLITS,
    NR_FREE,
    NR_PAGES,
    NR_REPORTED,
    NR_VCPUS,
    OLDEST,
    PAGEBLOCKS,
    PCP_LISTS,
    PCP_LOCK,
    PCP_RINGS,
    PCP_ROOM,
    RECORD_WORDS,
    REQUEST,
    SPARES,
    STAMP_ERRORS,
    SYNC_HINTS,
    TICK,
    TYPE_WORDS,
    WAKE,
    ZONE_LOCK,
    frame_table_base,
    vcpu_base,
)
from pagetide.memory.frame_table import BEGUN, ENDED, FRAMES, INSTALLS, TAKING_MAX

if TYPE_CHECKING:
    from pagetide.explorer.machine import ExploredMachine

State = tuple[Any, ...]

HINTS_SEEN_MAX = 12
"""The longest array of hints that is part of the state."""

AT_THE_RING = frozenset({"submit", "look", "arm"})
"""Steps of who puts a batch into the ring, or takes it out."""

_SPARES_SEEN_MAX = 16
_GENERATION_SHIFT = 32


class MachineState:
    """Takes and sets the state of one machine."""

    def __init__(self, machine: "ExploredMachine") -> None:
        """Find all that can change."""
        self._words, self._pages, self._ram = machine.words, machine.pages, machine.ram
        objects = [*objects_of(machine.design), machine.glue, machine.driver, machine.reporting]
        objects += [*machine.loops, *machine.actors]
        self.objects = [*objects, *machine.reporters]
        arrays = [value for thing in self.objects for value in vars(thing).values() if isinstance(value, np.ndarray)]
        self._arrays = [array for array in arrays if array.base is None]
        self._arrays += [state for queue in machine.queues for state in queue.states]
        attributes = [Attributes(thing) for thing in objects]
        self._things = Things([*attributes, *[StepsAttributes(steps) for steps in machine.reporters]])
        stretches = list(self._words_that_change(machine))
        self._get_words = itemgetter(*[index for start, end in stretches for index in range(start, end)])
        ends = itertools.accumulate(end - start for start, end in stretches)
        places = [slice(*place) for place in pairwise([0, *ends])]
        self._stretches = [(slice(*stretch), place) for stretch, place in zip(stretches, places, strict=True)]
        self._array_bytes = [array.data.cast("B") for array in self._arrays]
        self._machine = machine
        self._first_rings = bytes(machine.ram.queue), [[s.copy() for s in queue.states] for queue in machine.queues]
        self._known: dict[Any, Any] = {}

    def _words_that_change(self, machine: "ExploredMachine") -> Iterator[tuple[int, int]]:
        words, orders = machine.words, machine.scenario.order_max + 1
        if machine.scenario.switches:
            yield NR_PAGES, NR_VCPUS + 1
            yield NOTIFY_SPLITS, HINTS
            yield SYNC_HINTS, SYNC_HINTS + 1
        yield TICK, TICK + 1
        yield ZONE_LOCK, ZONE_LOCK + 1
        yield FREE_PAGES, ISOLATED_BLOCKS + 1
        yield BALLOON_PAGES, BALLOON_PAGES + 1
        yield REQUEST, WAKE + 1
        yield HINTS, FALSE_OOMS + 1
        yield NR_FREE, NR_FREE + orders
        yield NR_REPORTED, NR_REPORTED + orders
        self._bases = [vcpu_base(vcpu) for vcpu in range(words[NR_VCPUS])]
        self._pcp_room = 2 * machine.scenario.pcp_high[1] + 1
        self._lists = {base: list(self._lists_of(machine, base)) for base in self._bases}
        for base in self._bases:
            yield base + PCP_LOCK, base + PCP_LISTS
            yield base + STAMP_ERRORS, base + STAMP_ERRORS + 1
            for place, ring in self._lists[base]:
                yield place, place + LIST_WORDS
                yield ring, ring + self._pcp_room
            yield base + HINT_COUNT, base + HINT_COUNT + 1
            yield base + HINT_BLOCKS, base + HINT_BLOCKS + HINTS_SEEN_MAX
        self._spares = vcpu_base(words[NR_VCPUS])
        yield self._spares, self._spares + _SPARES_SEEN_MAX
        table = frame_table_base(words[NR_VCPUS])
        if machine.takes_frames:
            yield FRAME_TABLE, FRAME_TABLE + 1
            yield table, table + FRAMES + machine.frames
        if first := words[PAGEBLOCKS]:
            yield first, first + (words[NR_PAGES] >> FRAME_ORDER)  # the explored guest's pageblocks
        yield words[MAP_BASE], len(words)

    def _lists_of(self, machine: "ExploredMachine", base: int) -> Iterator[tuple[int, int]]:
        """Where the words of each of a vCPU's lists are, and where its ring begins."""
        twice = 2 * machine.words[base + PCP_ROOM]
        for migratetype in range(MIGRATETYPES if machine.words[PAGEBLOCKS] else 1):
            lists = base + migratetype * TYPE_WORDS
            for order in machine.scenario.pcp_orders:
                ring = machine.words[lists + PCP_RINGS] + twice - (twice >> order)
                yield lists + PCP_LISTS + LIST_WORDS * order, ring

    def _forget_what_nobody_sees(self) -> None:
        words, pages, first_words = self._words, self._pages, self._ram.first_words
        for base in self._bases:
            if not words[base + PCP_LOCK]:
                self._straighten_lists(base)
            if not words[ZONE_LOCK]:
                start, end = base + HINT_BLOCKS + words[base + HINT_COUNT], base + HINT_BLOCKS + HINTS_SEEN_MAX
                words[start:end] = [0] * (end - start)
        if not words[ZONE_LOCK]:
            start, end = self._spares + words[SPARES], self._spares + _SPARES_SEEN_MAX
            words[start:end] = [0] * (end - start)
        self._count_anew()
        if self._machine.takes_frames:
            table = self._machine.table
            table[INSTALLS] = table[TAKING_MAX] = 0
        for page, first in enumerate(first_words):
            place = page * RECORD_WORDS + GENERATION
            if first == 0:
                pages[place] = 0
            elif first == pages[place] << _GENERATION_SHIFT | page:
                pages[place] = 1
                first_words[page] = 1 << _GENERATION_SHIFT | page

    def _straighten_lists(self, base: int) -> None:
        words, room = self._words, self._pcp_room
        for place, ring in self._lists[base]:
            listed = words[ring + words[place + OLDEST] : ring + words[place + END]]
            words[ring : ring + room] = listed + [0] * (room - len(listed))
            words[place + OLDEST], words[place + END] = 0, len(listed)

    def _count_anew(self) -> None:
        """Of batches only counts whether one is under way, and whether one ended since a vCPU looked."""
        machine, reporting, in_flight = self._machine, self._machine.reporting, self._machine.in_flight
        back = [loop.is_back for loop in machine.loops]
        reporting.batches_begun -= reporting.batches_done
        reporting.batches_done = 0
        if machine.balloons:
            machine.forget_balloon()
        if machine.takes_frames and machine.table[BEGUN] == machine.table[ENDED]:
            machine.table[BEGUN] = machine.table[ENDED] = 0
        for vcpu, another in zip(machine.vcpus, back, strict=True):
            vcpu.loop.seen = in_flight.ended - another if vcpu.minds_what_came_back else 0

    def _renew_rings(self) -> None:
        machine, memory = self._machine, self._ram.queue
        if not machine.device.idle or any(steps.step in AT_THE_RING for steps in machine.reporters):
            return
        wanted = [self._index(queue.used_event) - self._index(queue.used) & 0xFFFF for queue in machine.queues]
        memory[:], first = self._first_rings
        for queue, states, event in zip(machine.queues, first, wanted, strict=True):
            for state, before in zip(queue.states, states, strict=True):
                state[:] = before
            memory[queue.used_event : queue.used_event + 2] = event.to_bytes(2, "little")

    def _index(self, place: int) -> int:
        return int.from_bytes(self._ram.queue[place : place + 2], "little")

    def zone_state(self) -> State:
        """What a recount of the zone depends on."""
        return self._get_words(self._words), tuple(self._pages)

    def fill(self, words: Any) -> None:
        """Copy the words that can change into another zone's of the same size."""
        for stretch, _ in self._stretches:
            words[stretch] = self._words[stretch]

    def capture(self) -> State:
        """The state."""
        self._forget_what_nobody_sees()
        self._renew_rings()
        known = self._known.setdefault
        words, pages = self._get_words(self._words), tuple(self._pages)
        lists = tuple(self._ram.first_words), tuple(self._ram.inflated), tuple(self._ram.freed_at)
        ram = bytes(self._ram.queue), *lists
        arrays = tuple([array.tobytes() for array in self._array_bytes])
        things = self._things.capture()
        return (known(words, words), known(pages, pages), known(ram, ram), known(arrays, arrays), things)

    def restore(self, state: State) -> None:
        """Set the machine to this state."""
        changing, pages, (queue, first_words, inflated, freed_at), arrays, things = state
        words = self._words
        for stretch, at in self._stretches:
            words[stretch] = changing[at]
        self._pages[:] = pages
        self._ram.queue[:] = queue
        self._ram.first_words[:] = first_words
        self._ram.inflated[:], self._ram.freed_at[:] = inflated, freed_at
        for array, content in zip(self._array_bytes, arrays, strict=True):
            array[:] = content
        self._things.restore(things)
