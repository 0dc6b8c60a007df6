"""The machine that is explored: a tiny zone, a design, a ring, a device; all of its state can be taken and set."""

import types
from collections.abc import Generator
from typing import Any

from pagetide.explorer import balloon as explorer_balloon
from pagetide.explorer import rings as explorer_rings
from pagetide.explorer import steps as explorer_steps
from pagetide.explorer.actors import Actor, Clock, Device, Faults, Worker
from pagetide.explorer.balloon import BalloonWorker, Policy
from pagetide.explorer.checks import Checks
from pagetide.explorer.ground import (
    FRAME_ORDER,
    VCPUS,
    HostKilledError,
    Paused,
    Ram,
    TableView,
    pausing_ground,
    plain_ground,
    system_call,
)
from pagetide.explorer.rings import inflate_driver, join, report_driver
from pagetide.explorer.scenario import Scenario, operations_of
from pagetide.explorer.source import Control, Edit, ExploredError, World
from pagetide.explorer.state.whole import MachineState, State
from pagetide.explorer.steps import in_flight_of, reporting_of, worker_of
from pagetide.explorer.taking import Killer, Taker
from pagetide.explorer.vcpu import Vcpu
from pagetide.guest.allocator.zone_layout import (
    BUDDY,
    RECORD_WORDS,
    REPORTED,
    STATE,
    TICK,
    TICK_SHIFT,
    TYPE_MASK,
    frame_table_base,
)
from pagetide.guest.allocator.zone_layout import COOL_TICKS as COOL_TICKS_OF_ZONE
from pagetide.guest.reporting.registry import DESIGNS
from pagetide.memory.frame_states import REFUSED, take_begun
from pagetide.memory.frame_table import COOL_TICKS, FRAMES, GUEST_TICK, STATE_MASK
from pagetide.memory.frame_table import FREE as FREE_FRAME
from pagetide.memory.region_map import Region
from pagetide.units import PAGE_SHIFT, PAGE_SIZE_BYTES

_READ_OF_A_FRAME = Edit(
    "host.device.taking", "def begin_batch(", "old = table[FRAMES + frame]", "old = atomic_load(table, FRAMES + frame)"
)
"""No change, but a place to pause: the guest changes frames between the host's looks at two of them."""


def _still(scenario: Scenario) -> frozenset[str]:
    """Attributes that nobody changes, or nobody looks at, unless the scenario is about them."""
    changes = {"wanted_on": scenario.switches, "ring_full": scenario.ring_full, "was_woken": scenario.wakes_finely}
    changes |= dict.fromkeys(("batches_begun", "batches_done", "begun", "ended", "pages_out"), scenario.may_run_out)
    return frozenset(name for name, does in changes.items() if not does)


def _nothing(result: Any) -> Generator[Any, Any, Any]:
    yield from ()
    return result


class _Array(list[int]):
    """A list that says its shape: much faster than an array, one element at a time."""

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)


class Glue:
    """What the actors share besides the zone and the ring.

    Attributes:
        kicked: queues, a bit each, whose kick's eventfd is signalled.
        called: so is the call's.
        rung: so is the worker's.
        target_pages: what the host wants in the balloon.
        killed: the host's process was killed, and nobody has taken over yet.
    """

    def __init__(self) -> None:
        self.called = self.rung = self.killed = False
        self.kicked = self.target_pages = 0


class ExploredMachine:
    """A machine whose every step can be taken back."""

    def __init__(self, design: str, scenario: Scenario, edits: tuple[Edit, ...] = ()) -> None:
        """Build it, with the design started and nothing done yet."""
        self.takes_frames, self.balloons = design == "shared", design == "balloon"
        self.scenario, self.glue = scenario, Glue()
        self.ram = Ram(scenario.nr_pages, queues=2 if self.balloons else 1)
        self.plain_zone = self._make_zone()
        self.words = _Array(self.plain_zone.words.tolist())
        self.pages = _Array(self.plain_zone.pages.tolist())
        ground = pausing_ground(scenario.order_max, self.ram, lambda: self.control, finely=scenario.ring_finely)
        world = World(ground, (*edits, _READ_OF_A_FRAME), pausing=True, still=_still(scenario))
        self.control: Control = world.control
        place = DESIGNS[design]
        file = place.module.removeprefix("pagetide.")
        names = [file, "guest.vcpu", "memory.region_map"]
        names += ["guest.allocator.buddy", "guest.allocator.pcp", "guest.allocator.page_alloc"]
        names += ["host.memory.pieces", "host.memory.discard", "host.device.taking"]
        names += [*explorer_rings.MODULES, *explorer_steps.MODULES]
        names += ["guest.driver.inflate", "guest.balloon_worker"] if self.balloons else []
        modules = dict(zip(names, world.load(*names), strict=True))
        vars(modules["host.memory.pieces"])["punch_hole"] = self._punch_hole
        self.run_operations = modules["guest.vcpu"].run_operations
        self.take_batch, self.recover = modules["host.device.taking"].take_batch, modules["host.device.taking"].recover
        self.frames = scenario.nr_pages >> FRAME_ORDER
        self.table = TableView(self.words, frame_table_base(VCPUS), self._host_goes_on)
        self._join_rings(modules)
        zone = types.SimpleNamespace(words=self.words, pages=self.pages, frame_table=self.table)
        self.design = getattr(modules[file], place.kind)(zone, scenario.settings)
        self._take_steps(modules, zone)
        self._gather()
        self._state = MachineState(self)
        self.checks = Checks(self, self.plain_zone, self._state)
        watched = self.checks.watched(modules["guest.allocator.buddy"].take_block)
        for name in ("page_alloc", "pcp"):
            vars(modules[f"guest.allocator.{name}"])["take_block"] = watched

    def _take_steps(self, modules: dict[str, Any], zone: Any) -> None:
        """The package's own steps, of the worker's and, to be made by `reporter` and `vcpu_loop`, of vCPUs."""
        self._reporter, loop = modules["guest.worker"].Reporter, modules["guest.vcpu_loop"]
        self.reporting = reporting_of(self, modules)
        self.in_flight = in_flight_of(self, modules, zone)
        relief = self.design if self.balloons else None
        self.surroundings = loop.Surroundings(
            zone, self.reporting, self.in_flight, self.scenario.waits_before_oom, relief
        )
        self._vcpu_loop, self.out_of_memory = loop.VcpuLoop, loop.OutOfMemoryError
        self.reporters: list[Any] = [worker_of(self, modules)]
        self.loops: list[Any] = []
        self.finish(self.reporters[0].start(0.0))

    def reporter(self) -> Any:
        """Steps of a vCPU's own."""
        self.reporters.append(self._reporter(self.reporting))
        return self.reporters[-1]

    def vcpu_loop(self, vcpu: int, operations: Any) -> Any:
        """Steps of a vCPU that runs these operations."""
        self.loops.append(self._vcpu_loop(vcpu, self.surroundings, operations))
        return self.loops[-1]

    def _gather(self) -> None:
        """Everybody who acts; the device, or the host that takes frames, comes last."""
        programs = [operations_of(program) for program in self.scenario.programs]
        self.vcpus = [Vcpu(self, number, program) for number, program in enumerate(programs)]
        self.device = Device(self, "device")
        self.worker = (BalloonWorker if self.balloons else Worker)(self, "reporter", self.reporters[0])
        self.actors: list[Actor] = [*self.vcpus, self.worker]
        if self.scenario.switches or self.scenario.ring_full:
            self.actors.append(Faults(self, "faults"))
        if self.balloons:
            self.actors.append(Policy(self, "host"))
        if self.scenario.killed:
            self.actors.append(Killer(self, "killer"))
        if self.scenario.settings.cool_s:
            self.actors.append(Clock(self, "clock"))
        self.actors.append(Taker(self, "host") if self.takes_frames else self.device)

    def _make_zone(self) -> Any:
        scenario = self.scenario
        (zone,) = World(plain_ground(scenario.order_max), (), pausing=False).load("guest.allocator.zone")
        return zone.Zone(
            scenario.nr_pages,
            vcpus=VCPUS,
            watermarks=zone.Watermarks(*[scenario.watermark_min] * 3),
            pcp_batch=scenario.pcp_batch,
            pcp_high=scenario.pcp_high,
            pcp_orders=scenario.pcp_orders,
            migratetypes=scenario.migratetypes,
        )

    def _join_rings(self, modules: dict[str, Any]) -> None:
        kinds = modules["host.device.queues.element"].Queue
        capacity = self.scenario.settings.capacity
        size_bytes = self.scenario.nr_pages << PAGE_SHIFT
        if self.balloons:
            self.queues = [
                join(modules, kind, number, 1, self.ram, self.scenario.punches_max)
                for number, kind in enumerate((kinds.INFLATE, kinds.DEFLATE))
            ]
            self.driver = inflate_driver(modules, self.queues, self, self.ram)
            self._read_pfns, vars(modules["host.device.queues.element"])["read_pfns"] = (
                modules["host.device.queues.element"].read_pfns,
                self._deflated,
            )
            size_bytes += PAGE_SIZE_BYTES  # the page frame numbers are in guest memory
        else:
            self.queues = [join(modules, kinds.REPORTING, 0, capacity, self.ram, self.scenario.punches_max)]
            self.driver = report_driver(modules, self.queues[0], self)
        region = Region(0, size_bytes, 0, 0, 0, piece_bytes=self.scenario.piece_pages << PAGE_SHIFT)
        self.regions = modules["memory.region_map"].RegionMap([region]).table

    @staticmethod
    def coroutine(made: Any) -> Generator[Any, Any, Any]:
        """A design's method as a generator, whether it pauses or not."""
        return made if isinstance(made, Generator) else _nothing(made)

    def finish(self, stretch: Generator[Any, Any, Any]) -> None:
        """Run to its end what nobody interrupts."""
        self.control.fuel = 1 << 20
        for _ in stretch:
            pass

    def kick(self, index: int) -> Paused:
        """The driver's way to the device."""
        yield from system_call(self.control)
        self.glue.kicked |= 1 << index

    def capture(self) -> State:
        """All of the machine's state; equal states are equal."""
        return self._state.capture()

    def restore(self, state: State) -> None:
        """Set the machine back."""
        self._state.restore(state)

    def forget_balloon(self) -> None:
        """Make one of two states that differ in what nobody looks at again."""
        explorer_balloon.forget_what_nobody_sees(self)

    def let_time_pass(self) -> None:
        """Whatever is due in the future is due now."""
        for thing in self._state.objects:
            if vars(thing).get("due_s") is not None:
                vars(thing)["due_s"] = 0.0

    def _punch_hole(self, _fd: int, offset_bytes: int, length_bytes: int) -> Any:
        yield from system_call(self.control)
        if self.takes_frames:
            self._host_goes_on()
        first = offset_bytes >> PAGE_SHIFT
        for page in range(first, first + (length_bytes >> PAGE_SHIFT)):
            self.checks.discarded(page)
            self.ram.first_words[page] = 0
            if self.balloons:
                self.ram.inflated[page] = True
        return 0

    def _deflated(self, *arguments: Any) -> int:
        """The host reads of pages that were deflated."""
        count = int(self._read_pfns(*arguments))
        ranges = arguments[5]
        for page in ranges[:count, 0] >> PAGE_SHIFT:
            if not self.ram.inflated[page]:
                raise ExploredError(f"page {page} is deflated, and was not inflated")
            self.ram.inflated[page] = False
        return count

    def _host_goes_on(self) -> None:
        if self.glue.killed:
            raise HostKilledError

    def note_freed(self, pfn: int, order: int) -> None:
        """A block is about to be freed: none of its pages is free for longer than from now on."""
        for page in range(pfn, pfn + (1 << order)):
            self.ram.freed_at[page] = self.words[TICK]

    def offers_frames(self) -> bool:
        """Whether there is a frame that the host may take."""
        return any(self._offered(self.table[FRAMES + frame]) for frame in range(self.frames))

    def _offered(self, word: int) -> bool:
        table = self.table
        return take_begun(word, table[GUEST_TICK], table[COOL_TICKS]) != REFUSED

    def cools(self) -> bool:
        """Whether there is a block or frame that the next tick brings nearer to being reported or taken."""
        if self.takes_frames:
            words = [self.table[FRAMES + frame] for frame in range(self.frames)]
            return any(word & STATE_MASK == FREE_FRAME and not self._offered(word) for word in words)
        states = [self.pages[pfn * RECORD_WORDS + STATE] for pfn in range(self.scenario.nr_pages)]
        tick, cool_ticks = self.words[TICK], self.words[COOL_TICKS_OF_ZONE]
        return any(
            state & TYPE_MASK == BUDDY and not state & REPORTED and tick - (state >> TICK_SHIFT) < cool_ticks
            for state in states
        )
