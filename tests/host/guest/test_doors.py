"""What a front-end may give: eventfds, socketpairs and local files; anything else is not used, and harms nobody."""

import array
import contextlib
import os
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagetide import foreign_fds
from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import U64, MemoryRegion, encode_single_region
from pagetide.virtio.vhost_user.transport import PeerGoneError
from tests.host.daemon.process import Daemon
from tests.host.guest.served_guest import wait_readable
from tests.host.guest_ring import RING_PAGES

pytestmark = pytest.mark.slow


PATIENT = """
import sys
from pagetide import cli, foreign_fds
foreign_fds._CLOSING_S = 10.0
sys.exit(cli.main())
"""
"""A daemon that waits for what is closed: a thread that does it may not run for a while here."""


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Daemon]:
    """One of those."""
    with contextlib.closing(Daemon(tmp_path, program=("-c", PATIENT))) as daemon:
        yield daemon


def test_a_kick_that_is_no_eventfd_is_not_used(patient: Daemon) -> None:
    """An epoll set, which its owner could nest until it cannot be watched, is never watched; the log says so once."""
    with patient.guest("one") as good, patient.guest("two") as bad:
        with select.epoll() as own, select.epoll() as inner:
            own.register(inner.fileno(), select.EPOLLIN)
            for _ in range(3):
                bad.channel.call(Request.SET_VRING_KICK, U64.pack(4), (own.fileno(),))
        assert len(good.report([(RING_PAGES, 1)])) == 1
        assert bad.channel.get_config(0, 4) == bytes(4), "it is heard"
    patient.stopped_saying("SET_VRING_KICK comes with anon_inode:[eventpoll], not with an eventfd: it is not used")


@pytest.mark.parametrize("request_", [Request.SET_VRING_CALL, Request.SET_VRING_ERR])
def test_a_connection_that_is_given_to_itself_ends(
    daemon: Daemon, request_: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own socket as a descriptor to be called does not keep it: the guest goes when its front-end does."""
    with daemon.guest("one"):
        with daemon.guest("two") as bad:
            bad.channel.call(request_, U64.pack(0), (bad.channel.fileno(),))
        deadline_s = time.monotonic() + 10
        while daemon.ctl("show", "two") != 0 or "no guest" not in capsys.readouterr().out:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def test_a_connection_in_the_queue_of_a_socket_is_not_kept() -> None:
    """A socketpair that holds descriptors is refused, and none can be sent to it once it is taken."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
        theirs.sendmsg([b"x"], rights)
        assert not foreign_fds.is_one_way_socket(ours.fileno())
    theirs, ours = socket.socketpair()
    with theirs, ours:
        assert foreign_fds.is_one_way_socket(ours.fileno())
        with pytest.raises(BrokenPipeError):
            theirs.sendmsg([b"x"], rights)
        ours.send(b"call")
        assert theirs.recv(8) == b"call", "what UML gives to be called goes on"


def test_only_unnamed_stream_socketpairs_are_taken(tmp_path: Path) -> None:
    """No connection to a listener, no datagrams, nothing unconnected, nothing of the network."""
    path = str(tmp_path / "listener")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client, socket.socket() as tcp:
        listener.bind(path)
        listener.listen()
        client.connect(path)
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        taken = [foreign_fds.is_one_way_socket(each.fileno()) for each in (listener, client, tcp, *pair)]
        assert taken == [False] * 5
        for each in pair:
            each.close()


def test_which_files_are_local(tmp_path: Path) -> None:
    """Memory and disks are; what is no regular file, or what a kernel makes up, is not."""
    memory_fd, proc_fd = os.memfd_create("test-local"), os.open("/proc/self/status", os.O_RDONLY)
    null_fd, folder_fd = os.open("/dev/null", os.O_RDWR), os.open(tmp_path, os.O_RDONLY)
    event_fd = os.eventfd(0)
    with tempfile.TemporaryFile(dir=tmp_path) as on_disk, tempfile.TemporaryFile(dir="/dev/shm") as on_tmpfs:
        assert [foreign_fds.is_local_file(fd) for fd in (memory_fd, on_disk.fileno(), on_tmpfs.fileno())] == [True] * 3
        assert [foreign_fds.is_local_file(fd) for fd in (proc_fd, null_fd, folder_fd, event_fd)] == [False] * 4
    assert foreign_fds.describe(proc_fd) == "a file on proc"
    for fd in (memory_fd, event_fd):
        assert foreign_fds.close(fd)
    for fd in (proc_fd, null_fd, folder_fd):  # at once or by a thread
        assert foreign_fds.close(fd) or _is_closed_soon(fd)


def _is_closed_soon(fd: int) -> bool:
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        try:
            os.fstat(fd)
        except OSError:
            return True
        time.sleep(0.001)
    return False


def test_memory_that_is_no_local_file_is_refused(daemon: Daemon) -> None:
    """The guest goes with a reason that names its file system, before anything has asked that file system."""
    proc_fd = os.open("/proc/self/status", os.O_RDONLY)
    with daemon.guest("one") as good, daemon.guest("two") as bad:
        region = encode_single_region(MemoryRegion(1 << 45, 1 << 21, 1 << 45, 0))
        with pytest.raises(PeerGoneError):
            bad.channel.call(Request.ADD_MEM_REG, region, (proc_fd,))
        wait_readable(bad.channel.fileno())
        assert len(good.report([(RING_PAGES, 1)])) == 1
    os.close(proc_fd)
    status, log = daemon.stop()
    assert status == 0
    assert "ADD_MEM_REG comes with a file on proc, not with a memfd, or a file on tmpfs" in log
