"""A libvirtd of a test's own, with its files in a folder of its own, as a user who is not root: a session's."""

import importlib.util
import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.needed import lacking

_DISTRIBUTIONS = Path("/usr/lib/python3/dist-packages")
_DAEMON = Path("/usr/sbin/libvirtd")
_USER = pwd.getpwnam("nobody")
_START_MAX_S = 30.0


class LibvirtSession:
    """A running libvirtd."""

    def __init__(self, folder: Path, packages: Path) -> None:
        """In this folder; the folder of packages has libvirt's for Python."""
        socket = folder / "libvirt" / "libvirt-sock"
        self._environment = {"LIBVIRT_DEFAULT_URI": f"qemu:///session?socket={socket}", "PYTHONPATH": str(packages)}

    def define(self, definition: str) -> None:
        """Start a domain that is defined so; it ends with the session."""
        self._run("-c", "import sys, libvirt; libvirt.open(None).createXML(sys.argv[1])", definition)

    def arguments(self, definition: str) -> list[str]:
        """With what libvirt would start QEMU for a domain that is defined so; nothing is started."""
        script = "import sys, libvirt; print(libvirt.open(None).domainXMLToNative('qemu-argv', sys.argv[1]))"
        return shlex.split(self._run("-c", script, definition).replace("\\\n", " "))

    def why(self, *words: str) -> dict[str, object]:
        """What `pagetide why --json` answers."""
        told: dict[str, object] = json.loads(self._run("-m", "pagetide.cli", "why", *words, "--json"))
        return told

    def _run(self, *words: str) -> str:
        command = [sys.executable, *words]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | self._environment
        ).stdout


@contextmanager
def libvirt_session() -> Iterator[LibvirtSession]:
    """One until the end of the block; what it runs ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="libvirt-", dir="/tmp"))
    packages = folder / "packages"
    try:
        _link_package(packages)
        owner = (_USER.pw_uid, _USER.pw_gid) if os.geteuid() == 0 else (os.getuid(), os.getgid())
        os.chown(folder, *owner)
        variables = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
        with subprocess.Popen(
            [_DAEMON], cwd=folder, user=owner[0], group=owner[1], extra_groups=(), start_new_session=True,
            stderr=subprocess.DEVNULL, env=os.environ | dict.fromkeys(variables, str(folder)),
        ) as daemon:  # fmt: skip
            try:
                _wait_for(folder / "libvirt" / "libvirt-sock", daemon)
                yield LibvirtSession(folder, packages)
            finally:
                _end_domains(folder)
                daemon.terminate()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link_package(packages: Path) -> None:
    """That of the distribution is for one Python, and of its packages no other is wanted here."""
    if not _DAEMON.exists():
        lacking("as root on Debian, make setup-guests installs libvirt")
    modules = [_DISTRIBUTIONS / "libvirt.py", *_DISTRIBUTIONS.glob(f"libvirtmod.{sys.implementation.cache_tag}-*.so")]
    if len(modules) != 2 and importlib.util.find_spec("libvirt") is None:
        lacking("python3-libvirt is for another Python than this one, which has none of its own")
    packages.mkdir(mode=0o755)
    for module in modules:
        (packages / module.name).symlink_to(module)


def _wait_for(socket: Path, daemon: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + _START_MAX_S
    while not socket.is_socket():
        assert daemon.poll() is None, "libvirtd has ended"
        assert time.monotonic() < deadline_s, "libvirtd does not listen"
        time.sleep(0.05)


def _end_domains(folder: Path) -> None:
    """A libvirtd leaves its domains running."""
    for file in (folder / "libvirt" / "qemu" / "run").glob("*.pid"):
        os.kill(int(file.read_text()), 9)
