"""The process that plays a guest's vCPUs for calibration."""

import os
import signal

import pytest

from pagetide.machine.calibration.touch_process import TouchProcess
from pagetide.memory.guest_ram import GuestRam
from pagetide.units import PAGE_SIZE_BYTES

MIB = 1 << 20


def test_each_page_is_written_in_another_process() -> None:
    """Memory that nobody here has touched is resident afterwards, all of it, and once more after it was discarded."""
    with GuestRam.create(12 * MIB, "memfd") as ram, TouchProcess(ram.fd) as guest:
        assert os.fstat(ram.fd).st_blocks == 0
        for times in (1, 2):
            guest.touch()
            assert os.fstat(ram.fd).st_blocks * 512 == 12 * MIB
            assert (ram.words[:: PAGE_SIZE_BYTES // 8] == times).all()


def test_a_process_that_is_gone_is_an_error() -> None:
    """Who waits for its answer is told, and does not wait for ever."""
    with GuestRam.create(4 * MIB, "memfd") as ram, TouchProcess(ram.fd) as guest:
        guest.touch()
        os.kill(guest.pid, signal.SIGKILL)
        with pytest.raises(OSError, match="touches memory"):
            guest.touch()
