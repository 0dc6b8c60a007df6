"""What is broken on purpose in the worker's steps (guest/worker.py)."""

from pagetide.explorer.broken.variant import Variant
from pagetide.explorer.scenarios import SCENARIOS
from pagetide.explorer.source import Edit

_ZONE = SCENARIOS["zone"]
_START = SCENARIOS["start"]
_RING = SCENARIOS["ring"]
_FLIP = SCENARIOS["flip"]._replace(programs=("a2 f", ""), may_run_out=True)
_WORKER = "guest.worker"

WORKER = {
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
