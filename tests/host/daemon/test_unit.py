"""The systemd unit: how much it takes from the daemon, and that the daemon needs none of that."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from pagetide import cli
from pagetide.host.daemon.listener import Listener
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest
from tests.host.guest_ring import RING_PAGES
from tests.needed import lacking, need

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[3] / "deploy"
UNIT = (DEPLOY / "pagetide.service").read_text()
METRICS = (DEPLOY / "pagetide-metrics.conf").read_text()
_START_MAX_S = 180.0
EXPOSURE_MAX = 20
"""Of 100; what systemd calls 2.0 of 10."""


@pytest.mark.parametrize("text", [UNIT, UNIT + METRICS], ids=["plain", "metrics"])
def test_the_daemon_is_exposed_to_little(text: str, tmp_path: Path) -> None:
    """`systemd-analyze security` rates it below 2.0, with metrics as well."""
    need("systemd-analyze")
    unit = tmp_path / "pagetide.service"
    unit.write_text(text)
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert rated.returncode == 0, rated.stdout


ACL = struct.Struct("<HHI")
"""An entry of an access list as the kernel has it (posix_acl_xattr.h): whom, what, and a number of whom."""

NOBODY = 65534


def allow(path: Path, user: int) -> None:
    """What `setfacl -m u:USER:rw` does."""
    owner, somebody, group, mask, others = 1, 2, 4, 16, 32
    entries = [(owner, 6, -1), (somebody, 6, user), (group, 0, -1), (mask, 6, -1), (others, 0, -1)]
    acl = b"".join(ACL.pack(tag, may, number & 0xFFFFFFFF) for tag, may, number in entries)
    os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + acl)


def may_connect(path: Path) -> bool:
    """Whether this process may."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def test_an_access_list_lets_another_user_have_its_guests_socket_alone() -> None:
    """In folders as the unit's: before that nobody else may connect, and never to the control socket."""
    if os.geteuid() != 0:
        lacking("only root can be another user")
    (names,), (mode,) = (re.findall(rf"^RuntimeDirectory{what}=(.*)$", UNIT, re.MULTILINE) for what in ("", "Mode"))
    with tempfile.TemporaryDirectory(prefix="pagetide-test-", dir="/tmp") as top:
        for folder in (Path(top), *(Path(top) / name for name in names.split())):
            folder.mkdir(exist_ok=True)
            folder.chmod(int(mode, 8))
        Path(top).chmod(0o755)
        paths = [Path(top) / "pagetide" / name for name in ("guests/vm1.sock", "guests/vm2.sock", "control.sock")]
        with contextlib.ExitStack() as stack:
            for path in paths:
                stack.callback(Listener(path).close)
            assert all(map(may_connect, paths))
            os.seteuid(NOBODY)
            stack.callback(os.seteuid, 0)
            assert not any(map(may_connect, paths))
            os.seteuid(0)
            allow(paths[0], NOBODY)
            os.seteuid(NOBODY)
            assert list(map(may_connect, paths)) == [True, False, False]
            with pytest.raises(PermissionError):
                list(paths[0].parent.iterdir())


def allowed_calls() -> set[str]:
    """What the unit's filter leaves, by what systemd says of its sets."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    sets: dict[str, list[str]] = {}
    for line in listed.splitlines():
        if line.startswith("@"):
            sets[line.split()[0]] = members = []
        elif line.strip() and not line.strip().startswith("#"):
            members.append(line.strip())

    def expand(name: str) -> set[str]:
        return set().union(*map(expand, sets[name])) if name.startswith("@") else {name}

    calls: set[str] = set()
    for words in re.findall(r"^SystemCallFilter=(.*)", UNIT, re.MULTILINE):
        named = set().union(*map(expand, words.removeprefix("~").split()))
        calls = calls - named if words.startswith("~") else calls | named
    return calls


def _await_metrics(log: Path, traced: "subprocess.Popen[bytes]") -> re.Match[str]:
    """Where the daemon says that its metrics are."""
    end_s = time.monotonic() + _START_MAX_S
    while (told := re.search(r"metrics at (http://[^\"]+)", log.read_text())) is None:
        assert traced.poll() is None, log.read_text()
        assert time.monotonic() < end_s, "it does not start"
        time.sleep(0.05)
    return told


def test_the_daemon_makes_no_system_call_that_its_unit_forbids(tmp_path: Path) -> None:
    """Loading, metrics, sockets made and removed, a guest that is served, asked, steered and looked at, and the end.

    But for cachestat (0x1c3), which systemd 252 cannot name: without it RAM is not told from swap.
    """
    need("systemd-analyze", "strace")
    trace, control = tmp_path / "trace", tmp_path / "control"
    (tmp_path / "guests").mkdir()
    serve = [sys.executable, "-m", "pagetide.cli", "serve", "--socket-dir", str(tmp_path / "guests")]
    serve += ["--control", str(control), "--stats-interval", "0.1", "--metrics", "127.0.0.1:0"]
    log = tmp_path / "log"
    with log.open("w") as file:
        traced = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", str(trace), *serve], stderr=file, start_new_session=True
        )  # fmt: skip
    try:
        told = _await_metrics(log, traced)
        assert cli.main(["ctl", "add", "one", "--control", str(control)]) == 0
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "guests/one.sock"))
        with ServedGuest(sock) as guest:
            guest.report([(RING_PAGES, 1)])
            for words in (
                ["show", "one"],
                ["set", "one", "target=2MiB", "--force"],
                ["pause", "one"],
                ["resume", "one"],
            ):
                assert cli.main(["ctl", *words, "--control", str(control)]) == 0
            with urllib.request.urlopen(told[1], timeout=TIMEOUT_S) as answer:
                assert b'pagetide_guest_attached{guest="one"} 1' in answer.read()
        (daemon,) = Path(f"/proc/{traced.pid}/task/{traced.pid}/children").read_text().split()
        os.kill(int(daemon), signal.SIGTERM)
        traced.wait(timeout=_START_MAX_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(traced.pid, signal.SIGKILL)  # what is traced does not end with who traces it
        traced.wait()
    calls = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(errors="replace"), re.MULTILINE))
    assert {"fallocate", "recvmsg", "mincore"} <= calls
    assert calls - allowed_calls() <= {"cachestat", "syscall_0x1c3"}
