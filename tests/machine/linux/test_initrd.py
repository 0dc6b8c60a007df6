"""The initial file system of a real guest, judged by a reader of the format and by busybox itself."""

import re
import stat
import subprocess
import time
from pathlib import Path
from typing import IO

import pytest

from pagetide.machine.linux.initrd import INIT, Entry, cpio_archive, guest_initrd
from pagetide.machine.linux.kernel_modules import KernelModule
from pagetide.machine.linux.packages import find_busybox


def read_archive(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Mode, data and device of each entry by name, read as the format's text has it."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    offset = 0
    while True:
        assert archive[offset : offset + 6] == b"070701"
        fields = [int(archive[start : start + 8], 16) for start in range(offset + 6, offset + 110, 8)]
        _, mode, uid, gid, _, _, size, _, _, major, minor, name_size, _ = fields
        assert (uid, gid) == (0, 0)
        name_start = offset + 110
        name = archive[name_start : name_start + name_size - 1].decode()
        assert archive[name_start + name_size - 1] == 0
        data_start = (name_start + name_size + 3) & ~3
        offset = (data_start + size + 3) & ~3
        if name == "TRAILER!!!":
            assert offset == len(archive)
            return found
        found[name] = (mode, archive[data_start : data_start + size], (major, minor))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 4097])
@pytest.mark.parametrize("name", ["a", "ab", "abc", "folder/abcd"])
def test_what_was_put_in_can_be_read(name: str, size: int) -> None:
    """Names and data of every length modulo 4 come out as they went in."""
    entries = [Entry(name, stat.S_IFREG | 0o640, b"x" * size), Entry("n", stat.S_IFCHR | 0o600, device=(5, 1))]
    assert read_archive(cpio_archive(entries)) == {
        name: (stat.S_IFREG | 0o640, b"x" * size, (0, 0)),
        "n": (stat.S_IFCHR | 0o600, b"", (5, 1)),
    }


@pytest.mark.parametrize("name", ["", "/init", "TRAILER!!!"])
def test_names_that_cannot_be_are_refused(name: str) -> None:
    """An empty or absolute name, and the name that ends an archive, are errors."""
    with pytest.raises(ValueError, match="cannot be the name"):
        cpio_archive([Entry(name, stat.S_IFREG)])


def test_a_guest_has_its_init_busybox_modules_and_console() -> None:
    """An executable init, modules in order, device nodes, folders to mount on, and every program that init runs."""
    found = read_archive(
        guest_initrd(b"busybox", [KernelModule("virtio", b"first"), KernelModule("virtio_balloon", b"second")])
    )
    assert found["init"][:2] == (stat.S_IFREG | 0o755, INIT.encode())
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    modules = sorted(name for name in found if name.startswith("modules/"))
    assert [found[name][1] for name in modules] == [b"first", b"second"]
    for folder in ("modules", "proc", "sys", "mnt"):
        assert stat.S_ISDIR(found[folder][0])
    for program in ("dd", "insmod", "mount", "poweroff", "rm", "sleep", "stty"):
        assert program in INIT
        assert found[f"bin/{program}"][:2] == (stat.S_IFLNK | 0o777, b"busybox")


def test_busybox_can_read_it(tmp_path: Path) -> None:
    """Another reader of the format, the guest's own, extracts the same."""
    busybox = find_busybox()
    archive = guest_initrd(b"b" * 1001, [KernelModule("virtio_balloon", b"m" * 7)])
    for arguments in (["-t"], ["-i", "-d", "init", "modules/00-virtio_balloon"]):
        done = subprocess.run(
            [busybox, "cpio", *arguments], input=archive, capture_output=True, cwd=tmp_path, check=True
        )
    assert b"blocks" in done.stderr
    assert (tmp_path / "init").read_text() == INIT
    assert (tmp_path / "modules/00-virtio_balloon").read_bytes() == b"m" * 7


def test_the_init_is_a_shell_script_without_errors() -> None:
    """Busybox's shell parses it."""
    subprocess.run([find_busybox(), "sh", "-n", "-c", INIT], check=True)


LOOP = INIT[INIT.index("while :; do\n    command=") :]
STUBS = "tell_memory() { echo @memory; }; rm() { :; }; poweroff() { exit 0; }; "


def test_a_command_that_comes_slowly_is_taken() -> None:
    """Init looks after its memory five times a second, and loses no line that comes in two parts meanwhile."""
    with subprocess.Popen(
        [find_busybox(), "sh", "-c", STUBS + LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as init:
        assert init.stdin is not None
        assert init.stdout is not None
        told: list[bytes] = []

        def say(to: IO[bytes], *parts: bytes) -> None:
            for part in parts:
                to.write(part)
                to.flush()
                time.sleep(0.5)

        say(init.stdin, b"re", b"move\n")
        while told.count(b"@removed") < 1 or told.count(b"@memory") < 4:  # two of them by itself, at least
            told.append(init.stdout.readline().strip())
            assert told[-1], "it ended"
        say(init.stdin, b"\nst", b"op\n")
        told += init.stdout.read().split()
    assert told.count(b"@removed") == 1


def test_only_what_is_tended_from_the_removal_on_is_told(tmp_path: Path) -> None:
    """What looks on before that begins with the guest, ends at the removal, and is never taken for what comes then."""
    functions = INIT[INIT.index("tend_on() {") : INIT.index('tell_memory\necho "@ready')]
    tends = 'tend=1; dd() { :; }; sh() { echo "tends $2"; [ "$2" ] || exec sleep 60; }; '
    script = STUBS + tends + functions + "echo @ready\n" + LOOP
    told: list[str] = []
    with subprocess.Popen(
        ["timeout", "60", find_busybox(), "sh", "-c", script.replace("/tmp/tend", str(tmp_path / "tend"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as init:
        assert init.stdin is not None
        assert init.stdout is not None
        rounds = [
            ("", "@ready"),
            ("fill 1", "@filled"),
            ("remove", "@tended"),
            ("fill 1", "tends"),
            ("remove", "@tended"),
        ]
        for order, last in [*rounds, ("stop", "")]:
            init.stdin.write(order and order + "\n")
            init.stdin.flush()
            while (line := init.stdout.readline().strip()) != last:
                assert line, "it ended"
                told.append(line)
            told.append(last)
    of_tending = [line for line in told if line not in ("@memory", "@filled", "")]
    assert of_tending == ["tends", "@ready", *["@removed", "tends --once", "@tended", "tends"] * 2][:-1]


@pytest.mark.parametrize(("opened", "told"), [("3<>", ["tends", "on"]), ("3<", [])])
def test_a_job_that_ends_meanwhile_does_not_end_the_guest(opened: str, told: list[str], tmp_path: Path) -> None:
    """SIGCHLD interrupts a shell that waits for the other end of a fifo, which ends it: here none waits for that."""
    functions = INIT[INIT.index("tend_on() {") : INIT.index("tend_once() {")].replace("exec 3<>", f"exec {opened}")
    late = functions.replace("sh /tend.sh >/tmp/tend 2>&1", "{ sleep 0.6; sh /tend.sh >/tmp/tend 2>&1; }")
    assert late != functions
    script = f"sh() {{ echo tends; }}; mkfifo /tmp/tend\n{late}\nsleep 0.2 & tend_on; echo on; wait"
    script = script.replace("/tmp/tend", str(tmp_path / "tend"))
    done = subprocess.run(
        ["timeout", "10", find_busybox(), "sh", "-c", script], check=False, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.split() == told


def test_what_runs_beside_has_a_name_of_its_own() -> None:
    """Several run, and the last one that was started ends at any time: none is called `$!` where it is used."""
    uses = [line.strip() for line in INIT.splitlines() if "$!" in line]
    assert uses
    assert all(re.search(r"\b[a-z]+=\$!", line) and line.count("$!") == 1 for line in uses)
