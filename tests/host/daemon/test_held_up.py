"""What a front-end does to descriptors that it shares, after the daemon has looked at them, holds nobody up."""

import os
import signal
import threading
from pathlib import Path

import pytest

from pagetide.host.device.queues.kick_step import BUSY
from pagetide.host.sharing.interruption import Interruption
from tests.host.daemon.process import Daemon
from tests.host.guest.descriptor_kinds import fill
from tests.host.guest.served_guest import TIMEOUT_S, wait_readable
from tests.host.guest_ring import RING_PAGES


def test_an_eventfd_that_is_made_to_block_is_given_up(tmp_path: Path) -> None:
    """Full, and blocking since after the daemon had it: its guest goes, and the guest beside it is served."""
    daemon = Daemon(tmp_path)
    try:
        with daemon.guest("one") as bad, daemon.guest("two") as good:
            bad.report([(RING_PAGES, 1)])
            fill(bad.call_fd)
            bad.ring.driver.arm_call()
            bad.submit([(RING_PAGES + 1, 1)])
            served = threading.Thread(target=lambda: good.report([(RING_PAGES, 1)]))
            served.start()
            served.join(TIMEOUT_S)
            assert not served.is_alive()
            wait_readable(bad.channel.fileno())
        daemon.stopped_saying("made its eventfd block, and filled it")
    finally:
        daemon.close()


def test_a_call_that_blocks_late_ends_all_the_same() -> None:
    """Ticks that came before, while the loop was busy for long, leave those that end a write which blocks then."""
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    fill(fd)
    unblock = threading.Timer(TIMEOUT_S / 4, lambda: os.eventfd_read(fd))
    with Interruption() as interruption:
        interruption.busy()
        for _ in range(3):
            signal.raise_signal(signal.SIGALRM)
        unblock.start()
        with pytest.raises(InterruptedError):
            os.eventfd_write(fd, 1)
        unblock.cancel()
        unblock.join()
        interruption._words[BUSY] = 0  # as the loop's step has it before it sleeps
        signal.raise_signal(signal.SIGALRM)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    os.close(fd)
