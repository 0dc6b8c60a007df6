"""Files that are cut short while they are mapped, in processes of their own."""

import signal
import subprocess
import sys

_SCRIPT = """
import ctypes, os
from pagetide import bus_error, linux
fd = os.memfd_create("cut")
os.ftruncate(fd, 4 * 4096)
address = linux.mmap(0, 4 * 4096, 3, linux.MAP_SHARED, fd)
word = lambda page: ctypes.c_int64.from_address(address + page * 4096 + 8)
for page in range(4):
    word(page).value = page + 1
if {installed}:
    bus_error.install()
others = [bus_error.GuardedRange(1 << 60, 4096) for _ in range(3)]
others[1].close()
guarded = bus_error.GuardedRange(address, {guarded_pages} * 4096)
assert not guarded.was_cut
os.ftruncate(fd, 4096)
print(word(0).value, guarded.was_cut, word(1).value, guarded.was_cut, bus_error.fault_count().value, flush=True)
word(1).value = 7
print(word(1).value, any(other.was_cut for other in others), bus_error.fault_count().value, flush=True)
print(word(3).value, flush=True)
guarded.close()
again = bus_error.GuardedRange(address, 4096)
assert not again.was_cut
"""


def _run(installed: bool, guarded_pages: int) -> tuple[int, list[str]]:
    script = _SCRIPT.format(installed=installed, guarded_pages=guarded_pages)
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()


def test_a_guarded_file_may_be_cut() -> None:
    """What lies beyond the end reads as zeros and can be written; the rest is as it was, and the cut is noted."""
    assert _run(True, 4) == (0, ["1 False 0 True 1", "7 False 1", "0"])


def test_any_other_bus_error_is_fatal() -> None:
    """Outside of guarded ranges, and without the handler, the signal ends the process."""
    assert _run(True, 3) == (-signal.SIGBUS, ["1 False 0 True 1", "7 False 1"])
    assert _run(False, 4) == (-signal.SIGBUS, [])
