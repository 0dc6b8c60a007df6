"""`pagetide serve` with a real systemd-journald, which has a /run and a /var/log of its own."""

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest
from tests.host.guest_ring import PAGE, RING_PAGES
from tests.host.little_service_manager import START_MAX_S
from tests.needed import lacking, need

pytestmark = [pytest.mark.slow, pytest.mark.jit]

JOURNALD = Path("/lib/systemd/systemd-journald")
_BEGIN = (
    "mount -t tmpfs none /run && mount -t tmpfs none /var/log && mkdir -p /run/systemd /run/log /var/log/journal && "
    f"exec {JOURNALD}"
)
_AS_A_SERVICE = 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"'
"""Says what systemd says to a service (systemd.exec(5)); systemd-cat leaves it out."""


class Journald:
    """A journal daemon in namespaces of its own, where who calls is root."""

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until it says that it is ready."""
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(str(folder / "notify"))
        self._log = (folder / "journald.log").open("w+b")
        self._process = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _BEGIN],
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
            stderr=self._log,
        )
        pidfd = os.pidfd_open(self._process.pid)
        told = b""
        while b"READY=1" not in told:
            ready = select.select([notify.fileno(), pidfd], [], [], TIMEOUT_S)[0]
            if notify.fileno() not in ready:
                os.close(pidfd)
                notify.close()
                self.close()
                lacking(f"no journal daemon runs here: {(folder / 'journald.log').read_text()[-300:]}")
            told = notify.recv(4096)
        os.close(pidfd)
        notify.close()

    def within(self, command: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        """Start a command that sees this journal."""
        enter = ["nsenter", "--target", str(self._process.pid), "--user", "--mount", "--preserve-credentials"]
        return subprocess.Popen([*enter, *command], **streams)

    def entries(self, *words: str) -> list[dict[str, str]]:
        """What `journalctl` finds."""
        process = self.within(["journalctl", "--no-pager", "-o", "json", *words], stdout=subprocess.PIPE)
        return [json.loads(line) for line in process.communicate(timeout=TIMEOUT_S)[0].splitlines()]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._log.close()


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    """One of them."""
    need("unshare", "nsenter", "journalctl", "systemd-cat")
    if not JOURNALD.exists():
        lacking(f"there is no {JOURNALD} here")
    made = Journald(tmp_path)
    yield made
    made.close()


class Follower:
    """What is in the journal, and comes to it."""

    def __init__(self, journald: Journald) -> None:
        """Begin to follow it."""
        self.process = journald.within(["journalctl", "-f", "-n", "all", "-o", "json"], stdout=subprocess.PIPE)
        self._rest = b""

    def wait_for(self, event: str) -> None:
        """Until an entry comes whose event begins so."""
        assert self.process.stdout is not None
        while True:
            *lines, self._rest = self._rest.split(b"\n")
            if any(json.loads(line).get("EVENT", "").startswith(event) for line in lines):
                return
            assert select.select([self.process.stdout], [], [], START_MAX_S)[0], f"no {event!r}"
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, "nothing is followed any more"
            self._rest += data

    def close(self) -> None:
        """Follow it no more."""
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def test_a_guests_events_are_found_by_their_fields(journald: Journald, tmp_path: Path) -> None:
    """As the operators' page asks for them: one guest's, what is not as it should be, an account with its figures."""
    path = tmp_path / "one.sock"
    serve = [sys.executable, "-m", "pagetide.cli", "serve", "--socket", str(path), "--control", str(tmp_path / "c")]
    following = Follower(journald)
    daemon = journald.within(["systemd-cat", "--identifier=pagetide", "sh", "-c", _AS_A_SERVICE, "sh", *serve])
    try:
        following.wait_for("listening at")
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        with ServedGuest(sock) as guest:
            guest.report([(RING_PAGES, 2)])
            os.write(guest.channel.fileno(), b"\xff" * 12)
            following.wait_for("account")
    finally:
        daemon.kill()
        daemon.wait()
        following.close()
    (account,) = journald.entries("GUEST=one", "EVENT=account")
    assert (account["RETURNED_BYTES"], account["_TRANSPORT"]) == (str(2 * PAGE), "journal")
    (broken,) = journald.entries("-p", "warning", "GUEST=one")
    assert broken["EVENT"].startswith("broke the protocol")
    assert {entry["EVENT"] for entry in journald.entries("GUEST=one")} >= {"attached", "account", broken["EVENT"]}
    assert journald.entries("GUEST=two") == []
