"""What is broken on purpose: the explorer must catch each, or it proves nothing."""

from typing import NamedTuple

from pagetide.explorer.scenario import Scenario
from pagetide.explorer.scenarios import SCENARIOS, SCENARIOS_BALLOON, SCENARIOS_POOL, SCENARIOS_SHARED
from pagetide.explorer.source import Edit


class Variant(NamedTuple):
    """Something that is broken on purpose.

    Attributes:
        what: is wrong with it.
        design: in which design it shows.
        scenario: where.
        edits: how it is made; none where the scenario itself is at fault.
        found: part of what the explorer must say of it.
    """

    what: str
    design: str
    scenario: Scenario
    edits: tuple[Edit, ...]
    found: str


_ZONE, _START, _RING = SCENARIOS["zone"], SCENARIOS["start"], SCENARIOS["ring"]
_LOCKED, _UNLOCKED = "    lock(words, ZONE_LOCK)\n", "    unlock(words, ZONE_LOCK)\n"


def _without_lock(module: str, function: str) -> tuple[Edit, ...]:
    return Edit(module, f"def {function}(", _LOCKED, ""), Edit(module, f"def {function}(", _UNLOCKED, "")


_FLIP = SCENARIOS["flip"]._replace(programs=("a2 f", ""), may_run_out=True)
_WORKER, _RUNS = "guest.worker", "guest.reporting.runs"

VARIANTS = {
    "put back without the lock": Variant(
        "blocks are put back without the zone lock",
        "cursor",
        _START,
        _without_lock("guest.allocator.isolate", "put_back"),
        "",
    ),
    "isolate without the lock": Variant(
        "blocks are isolated without the zone lock",
        "cursor",
        _START,
        _without_lock("guest.allocator.by_position", "take_candidates"),
        "",
    ),
    "drained without the zone lock": Variant(
        "a per-CPU list is given back under its own lock alone",
        "cursor",
        SCENARIOS["drain"],
        _without_lock("guest.allocator.pcp", "_drain"),
        "",
    ),
    "another's list drained without its lock": Variant(
        "an allocation that fails drains every vCPU's list, whatever its owner does with it",
        "cursor",
        SCENARIOS["drain"],
        (
            Edit("guest.allocator.pcp", "def pcp_drain(", "    lock(words, base + PCP_LOCK)\n", ""),
            Edit("guest.allocator.pcp", "def pcp_drain(", "    unlock(words, base + PCP_LOCK)\n", ""),
        ),
        "the zone is not sound",
    ),
    "marked with its buddy": Variant(
        "a reported block that merges with an unreported one keeps its mark",
        "cursor",
        SCENARIOS["merge"],
        (
            Edit(
                "guest.allocator.buddy",
                "def return_block(",
                " and pages[buddy * RECORD_WORDS + STATE] & REPORTED != 0",
                "",
            ),
        ),
        "is marked Reported and was not discarded",
    ),
    "halves marked": Variant(
        "the halves of an unreported block are marked when it is split",
        "cursor",
        _ZONE,
        (Edit("guest.allocator.buddy", "def _split(", "bool(found & REPORTED) and ", ""),),
        "is marked Reported and was not discarded",
    ),
    "allocated meanwhile": Variant(
        "the lock is given up between finding a block and isolating it",
        "cursor",
        _START,
        (
            Edit(
                "guest.allocator.by_position",
                "def isolate_at(",
                "    outcome = isolate_block(",
                f"{_UNLOCKED}{_LOCKED}    outcome = isolate_block(",
            ),
        ),
        "",
    ),
    "acknowledged before it is discarded": Variant(
        "the device gives an element back before it punches the hole",
        "cursor",
        _START._replace(ring_finely=True),
        (
            Edit(
                "host.device.turn",
                "def _take_turn(",
                "        failure = go_on(",
                "        push_used(ring, ring[POPPED_HEAD], 0)\n        publish_used(ring)\n        failure = go_on(",
            ),
            Edit("host.device.turn", "def _take_turn(", "push_used(ring, ring[POPPED_HEAD], initialised)", "0"),
            Edit("host.device.turn", "def _take_turn(", "call = publish_used(ring)", "call = 1"),
        ),
        "is discarded while",
    ),
    "request lost at the end of a pass": Variant(
        "a pass looks for what is left first, and then ends without a look at what was requested meanwhile",
        "notify",
        _ZONE,
        (
            Edit(
                "guest.allocator.request",
                "def end_pass(",
                "return atomic_compare_exchange(words, REQUEST, REQUEST_ACTIVE, REQUEST_IDLE) == REQUEST_REQUESTED",
                "return atomic_exchange(words, REQUEST, REQUEST_IDLE) == REQUEST_IDLE",
            ),
            Edit(
                "guest.reporting.passes",
                "def _end_pass(",
                "again, left = bool(end_pass(self._zone.words)), self._left()",
                "left, again = self._left(), bool(end_pass(self._zone.words))",
            ),
        ),
        "never reported",
    ),
    "call missed": Variant(
        "the driver asks for a call and sleeps without another look",
        "scan",
        _RING,
        (
            Edit(
                "virtio.split_ring.driver",
                "def arm_call(",
                "return 1 if load_u16_acquire(state[USED_ADDRESS] + RING_IDX) != state[USED_SEEN] else 0",
                "return 0",
            ),
        ),
        "a deadlock",
    ),
    "kick missed": Variant(
        "the device asks for a kick and sleeps without another look",
        "scan",
        _RING,
        (
            Edit(
                "virtio.split_ring.device",
                "def arm_kick(",
                "return 1 if load_u16_acquire(state[AVAIL_ADDRESS] + RING_IDX) != state[LAST_AVAIL] else 0",
                "return 0",
            ),
        ),
        "a deadlock",
    ),
    "kick under the lock": Variant(
        "a batch is reported with the zone lock held",
        "cursor",
        _START,
        (
            Edit(
                "guest.driver.reporting",
                "def submit(",
                "            self._transport",
                "            lock(self._transport.words, 8)\n            self._transport",
            ),
            Edit(
                "guest.driver.reporting",
                "from typing",
                "import Protocol",
                "import Protocol\nfrom pagetide.guest.allocator.zone_lock import lock",
            ),
        ),
        "a lock is held across a kick",
    ),
    "nobody waits for what is out": Variant(
        "an allocation fails although blocks are out for reporting",
        "cursor",
        _START._replace(waits_before_oom=False),
        (),
        "a false OOM",
    ),
    "a failed report is forgotten": Variant(
        "a report fails, and nothing asks for another pass",
        "scan",
        SCENARIOS["full"],
        (
            Edit(
                "guest.reporting.passes",
                "def done(",
                "            self._end_pass(now_s)",
                "            self._schedule.due_s, self._in_pass = None, False",
            ),
        ),
        "never reported",
    ),
    "marked although it failed": Variant(
        "blocks whose report failed go back with the Reported mark",
        "scan",
        SCENARIOS["full"],
        (
            Edit(
                "guest.reporting.passes",
                "def take_back(",
                "put_back(self._zone.words, self._zone.pages, batch, len(batch), reported)",
                "put_back(self._zone.words, self._zone.pages, batch, len(batch), True)",
            ),
        ),
        "is marked Reported and was not discarded",
    ),
    "switched on without a look": Variant(
        "a design that is switched on again does not record what became free meanwhile",
        "notify",
        SCENARIOS["switch"],
        (Edit("guest.reporting.designs.notify", "def start(", "        record_all_free(self._zone)\n", ""),),
        "never reported",
    ),
    "a frame that is being taken is allocated": Variant(
        "the guest allocates a frame while the host discards it",
        "shared",
        SCENARIOS_SHARED["take"],
        (
            Edit(
                "memory.frame_states",
                "def claimed(",
                "return REFUSED if old & STATE_MASK == TAKING else IN_USE",
                "return IN_USE",
            ),
        ),
        "is discarded while it is allocated",
    ),
    "inflated before the host was told": Variant(
        "a page that came out of the balloon goes back in before the host was told that it came out",
        "balloon",
        SCENARIOS_BALLOON["block"],
        (Edit("guest.allocator.balloon_pages", "def take_pages(", " and counts[UNTOLD_PAGES] == 0", ""),),
        "is inflated again before the host was told",
    ),
    "deflated without the lock": Variant(
        "an allocation that fails takes pages out of the balloon without the zone lock",
        "balloon",
        SCENARIOS_BALLOON["relief"],
        _without_lock("guest.allocator.balloon_pages", "deflate_now"),
        "",
    ),
    "a failed inflation is kept": Variant(
        "pages that the host could not be told of stay in the balloon",
        "balloon",
        SCENARIOS_BALLOON["full"],
        (
            Edit(
                "guest.reporting.designs.balloon",
                "def done(",
                "free_pages(words, pages, batch, len(batch))",
                "hold_pages(words, pages, counts, batch, len(batch))",
            ),
        ),
        "is held in the balloon, and the host was not told",
    ),
    "no relief": Variant(
        "an allocation fails although the balloon has what it needs",
        "balloon",
        SCENARIOS_BALLOON["relief"],
        (
            Edit(
                "guest.reporting.designs.balloon",
                "def deflate_on_oom(",
                "        most = max(1 << order, OOM_PAGES)\n",
                "        most = 0\n",
            ),
        ),
        "a livelock",
    ),
    "a killed host's frames are forgotten": Variant(
        "a host that takes over leaves alone what the one before was discarding",
        "shared",
        SCENARIOS_SHARED["killed"],
        (Edit("host.device.taking", "def recover(", "new = take_abandoned(old)", "new = REFUSED"),),
        "a false OOM",
    ),
    "a killed host's frames count as discarded": Variant(
        "a host that takes over believes that the one before had discarded what it was about to",
        "shared",
        SCENARIOS_SHARED["killed"],
        (Edit("memory.frame_states", "def take_abandoned(", "old ^ (FREE ^ TAKING)", "old | TAKEN"),),
        "is TAKEN and was not discarded",
    ),
    "the table is left too early": Variant(
        "a guest that withdraws its frames no longer looks at the table, though the host still discards one",
        "shared",
        SCENARIOS_SHARED["switch"],
        (Edit("guest.reporting.designs.shared", "def stop(", "if not taking:", "if True:"),),
        "",
    ),
    "reported before it is cool": Variant(
        "a freed block does not say since when it is free",
        "scan",
        SCENARIOS["cool"],
        (Edit("guest.allocator.buddy", "def return_block(", "words[TICK]", "0"),),
        "too early",
    ),
    "young blocks are swept once": Variant(
        "what was too young when the sweep came by is not swept again",
        "notify-array",
        SCENARIOS["cool"],
        (Edit("guest.reporting.hint_arrays", "def begin_again(", "if self._met_young:", "if False:"),),
        "never reported",
    ),
    "a mark that survives an allocation": Variant(
        "a block that is freed has the mark that it had before it was allocated",
        "pool",
        SCENARIOS["merge"],
        (
            Edit(
                "guest.allocator.page_alloc",
                "def free(",
                "return_block(words, pages, pfn, order, False, False)",
                "return_block(words, pages, pfn, order, False, True)",
            ),
        ),
        "is marked Reported and was not discarded",
    ),
    "a run reaches into a block in use": Variant(
        "a run goes on behind a block that is in use",
        "pool",
        SCENARIOS_POOL["runs"],
        (
            Edit(_RUNS, "def _last_of_frame(", "((frame + 1) << FRAME_ORDER) - 1 >> words[REPORTING_ORDER]", "3"),
            Edit(_RUNS, "def _run_from(", " and position << smallest == behind", ""),
        ),
        "",
    ),
    "cold before hot": Variant(
        "an allocation takes the smallest block, reported or not",
        "pool",
        SCENARIOS_POOL["runs"],
        (Edit("guest.allocator.buddy", "def take_block(", "_first_unreported(words, pages, order)", "order"),),
        "a reported block is allocated, though an unreported one would do",
    ),
    "a run that is never due": Variant(
        "a single page never gets old enough, and passes go on for ever",
        "pool",
        SCENARIOS_POOL["runs"],
        (Edit(_RUNS, "def take_runs(", "if worth >= least", "if behind - first > 1 and worth >= least"),),
        "a livelock",
    ),
    "taken without a comparison": Variant(
        "the host looks whether a frame is free, and then stores that it takes it",
        "shared",
        SCENARIOS_SHARED["take"],
        (
            Edit(
                "host.device.taking",
                "def begin_batch(",
                "atomic_compare_exchange(table, FRAMES + frame, old, new) == old",
                "atomic_store(table, FRAMES + frame, new) is None",
            ),
        ),
        "the frame table offers what is not free",
    ),
    "acknowledged before all pieces are done": Variant(
        "the device gives an element back when its turn ends within it",
        "cursor",
        SCENARIOS["pieces"],
        (Edit("host.device.turn", "def _take_turn(", "if progress[NEXT_RANGE] < progress[RANGE_COUNT]:", "if False:"),),
        "is marked Reported and was not discarded",
    ),
    "rung before there is something to see": Variant(
        "who wakes the worker rings first, and says then that it did",
        "scan",
        _START,
        (
            Edit(
                _WORKER,
                "def wake(",
                "        self.was_woken = True\n        self.ring()",
                "        self.ring()\n        self.was_woken = True",
            ),
        ),
        "never reported",
    ),
    "a wake-up is wiped out": Variant(
        "the worker forgets a wake-up that came after it looked for one",
        "scan",
        _FLIP,
        (Edit(_WORKER, "def wake_up(", "        if woken:  #", "        if True:  #"),),
        "never reported",
    ),
    "asleep when the call has come": Variant(
        "the worker waits for a call that the device made no more, being done before it was asked for one",
        "scan",
        _RING,
        (Edit(_WORKER, "def arm(", "return Wait.NOTHING if done else Wait.CALL", "return Wait.CALL"),),
        "a deadlock",
    ),
    "switched off with a batch out": Variant(
        "a design that is to be switched off takes back what the host still has",
        "scan",
        SCENARIOS["switch"],
        (Edit(_WORKER, "def look(", "self.reporting.stopping", "not self.reporting.wanted_on"),),
        "is discarded while",
    ),
    "switched on again unawares": Variant(
        "what is wanted is looked at once to switch the design off, and once more to remember that it is off",
        "scan",
        SCENARIOS["flip"],
        (
            Edit(
                _WORKER,
                "def switch_off(",
                "self.reporting.on = False",
                "self.reporting.on = self.reporting.wanted_on",
            ),
        ),
        "the zone asks for nothing",
    ),
    "a hand-back that tells nobody": Variant(
        "a batch comes back, and who waits for memory is not told",
        "cursor",
        _START,
        (
            Edit(_WORKER, "def end_turn(", "        self.reporting.tell()\n", ""),
            Edit(_WORKER, "def rest(", "            reporting.tell()\n", ""),
        ),
        "a deadlock",
    ),
    "done before it is handed back": Variant(
        "a batch is counted as over before its blocks are back",
        "cursor",
        _START,
        (
            Edit(
                _WORKER,
                "def hand_back(",
                "        self.reporting.design.done(",
                "        self.reporting.batches_done += 1\n        self.reporting.design.done(",
            ),
            Edit(_WORKER, "def came_back(", "self.reporting.batches_done += 1", "self.reporting.batches_done += 0"),
        ),
        "a false OOM",
    ),
    "isolated before it is counted": Variant(
        "blocks are isolated before a batch is counted as begun",
        "cursor",
        _START,
        (
            Edit(_WORKER, "def ask(", "        self.reporting.batches_begun += 1\n", ""),
            Edit(
                _WORKER,
                "def ask(",
                "        self.step = ",
                "        self.reporting.batches_begun += 1\n        self.step = ",
            ),
        ),
        "a false OOM",
    ),
    "two report at once": Variant(
        "a vCPU reports while the worker does",
        "sync",
        _ZONE,
        (Edit(_WORKER, "def take_turn(", "if self.reporting.driving:", "if False:"),),
        "the batch before was not handed back",
    ),
}
"""By name."""
