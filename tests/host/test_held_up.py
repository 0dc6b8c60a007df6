"""What a front-end does to descriptors that it shares, after the daemon has looked at them, holds nobody up."""

import contextlib
import os
import threading
from pathlib import Path

from tests.host.daemon_process import Daemon
from tests.host.guest_ring import RING_PAGES
from tests.host.served_guest import TIMEOUT_S, wait_readable


def test_an_eventfd_that_is_made_to_block_is_given_up(tmp_path: Path) -> None:
    """Full, and blocking since after the daemon had it: its guest goes, and the guest beside it is served."""
    daemon = Daemon(tmp_path)
    try:
        with daemon.guest("one") as bad, daemon.guest("two") as good:
            bad.report([(RING_PAGES, 1)])
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(bad.call_fd)
            os.eventfd_write(bad.call_fd, (1 << 64) - 2)
            os.set_blocking(bad.call_fd, True)
            bad.ring.driver.arm_call()
            bad.submit([(RING_PAGES + 1, 1)])
            served = threading.Thread(target=lambda: good.report([(RING_PAGES, 1)]))
            served.start()
            served.join(TIMEOUT_S)
            assert not served.is_alive()
            wait_readable(bad.channel.fileno())
        status, log = daemon.stop()
        assert status == 0
        assert log.count("made its eventfd block, and filled it") == 1
    finally:
        daemon.close()
