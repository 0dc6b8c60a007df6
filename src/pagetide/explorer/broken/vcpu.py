"""What is broken on purpose in a vCPU's steps (guest/vcpu_loop.py), and in their rules (guest/vcpu.py)."""

from pagetide.explorer.broken.variant import Variant
from pagetide.explorer.scenarios import SCENARIOS
from pagetide.explorer.source import Edit

_ZONE, _START = SCENARIOS["zone"], SCENARIOS["start"]
_LOOP = "guest.vcpu_loop"

VCPU = {
    "an idle vCPU keeps its list": Variant(
        "a vCPU that is through does not drain its per-CPU list",
        "scan",
        _ZONE,
        (Edit("guest.vcpu", "def next_act(", "        return ACT_DRAIN\n", "        pass\n"),),
        "is idle, and keeps",
    ),
    "an idle drain is told nobody": Variant(
        "nobody looks who is wanted after an idle vCPU's list was drained",
        "scan",
        _ZONE,
        (Edit(_LOOP, "def drain(", "        self.stopped(outcome)\n", '        self.step = "go_on"\n'),),
        "never reported",
    ),
    "a wake-up that is taken and not passed on": Variant(
        "a vCPU is the one to wake the worker, and does not",
        "scan",
        _ZONE,
        (Edit(_LOOP, "def wake(", "        self.reporting.wake()\n", ""),),
        "never reported",
    ),
    "a full batch is left to nobody": Variant(
        "a vCPU does not report the batch that its frees filled",
        "sync",
        _ZONE,
        (Edit(_LOOP, "_THEN = ", 'HOST_WANTED: "report", ', ""),),
        "never reported",
    ),
    "nobody waits for what is out": Variant(
        "an allocation fails although blocks are out for reporting that it could wait for",
        "cursor",
        _START,
        (Edit(_LOOP, "def run_out(", "not self.waits_before_oom and ", ""),),
        "does not wait for what is out",
    ),
    "a false OOM that nobody counts": Variant(
        "an allocation fails falsely where nobody waits, and is not counted",
        "cursor",
        SCENARIOS["none"],
        (Edit(_LOOP, "def run_out(", "            note_false_oom(self.words)\n", ""),),
        "1 allocations failed falsely, and 0 were counted",
    ),
    "what came back is looked at too late": Variant(
        "a vCPU looks how much had come back only after its allocation failed",
        "cursor",
        _START,
        (
            Edit(
                _LOOP,
                "def run(",
                "        self.stopped(outcome)\n",
                "        self.seen = self.in_flight.ended\n        self.stopped(outcome)\n",
            ),
        ),
        "a false OOM",
    ),
    "waits for what is back": Variant(
        "a vCPU whose allocation failed waits for what comes back from then on, though that may have been the last",
        "cursor",
        _START,
        (
            Edit(
                _LOOP,
                "def run_out(",
                "        return Wait.MEMORY\n",
                "        self.seen = self.in_flight.ended\n        return Wait.MEMORY\n",
            ),
        ),
        "a deadlock",
    ),
}
"""By name."""
