"""`pagetide tend` in a guest that is made of files, by each program that runs one of the scripts."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal, get_args

import psutil
import pytest

from pagetide.inside import tend as tend_py
from pagetide.inside import tend_script
from pagetide.inside.guest import Guest
from pagetide.machine.linux.packages import find_busybox

ORDER = "sys/module/page_reporting/parameters/page_reporting_order"

Program = Literal["sh", "busybox", "py"]
"""What runs a script: this machine's shell, the one that guests have, Python."""

SETTINGS = {
    ORDER: "9",
    "proc/sys/vm/percpu_pagelist_high_fraction": "0",
    "proc/sys/vm/compact_memory": "",
    "proc/stat": "cpu 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0",
    "proc/buddyinfo": "Node 0, zone Normal 8192 0 0 0 0 0 0 0 0 0 10",
    "proc/zoneinfo": "Node 0, zone Normal\n  pagesets\n    cpu: 0\n      count: 512\n      high: 1024",
    "proc/interrupts": "24: 5 PCI-MSI virtio0-reporting_vq",
}
"""Files of a guest with 32 MiB in single pages and 2 MiB on its per-CPU list."""


def made_guest(folder: Path) -> Path:
    """A folder with the files of a guest."""
    for name, text in SETTINGS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (folder / "run").mkdir()
    return folder


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """The same in a fixture."""
    return made_guest(tmp_path)


def command(program: Program, *arguments: str) -> list[str]:
    """The script that this program runs."""
    if program == "py":
        return [sys.executable, "-I", "-S", "-c", tend_script("py"), *arguments]
    words = ["sh"] if program == "sh" else [str(find_busybox()), "sh"]
    return [*words, "-c", tend_script("sh"), "tend.sh", *arguments]


@pytest.fixture(params=get_args(Program))
def program(request: pytest.FixtureRequest) -> Program:
    """Each program that runs one of the scripts."""
    found: Program = request.param
    return found


def tend(program: Program, guest: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script in this guest, to its end."""
    environment = {**os.environ, "TEND_ROOT": str(guest)}
    return subprocess.run(
        command(program, *arguments), env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def settings(guest: Path) -> dict[str, str]:
    """What the files hold."""
    return {name: (guest / name).read_text().rstrip("\n") for name in SETTINGS}


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(program: Program, guest: Path) -> None:
    """What is held, and each step."""
    done = tend(program, guest, "--dry-run")
    assert done.returncode == 0
    assert "order 9 leaves 32 MiB of what is free, and 2 MiB are on per-CPU lists" in done.stdout
    assert "would write 1 to /proc/sys/vm/compact_memory" in done.stdout
    assert settings(guest) == SETTINGS
    assert list((guest / "run").iterdir()) == []


def test_little_is_not_worth_it(program: Program, guest: Path) -> None:
    """Below --worth nothing would be done."""
    done = tend(program, guest, "--dry-run", "--worth", "64")
    assert "nothing to do: order 9 leaves 34 MiB" in done.stdout
    assert "would" not in done.stdout


def test_a_dry_run_ends_where_lists_have_most(program: Program, guest: Path) -> None:
    """With little in pieces nothing would be compacted, and nothing is waited for."""
    (guest / "proc/buddyinfo").write_text("Node 0, zone Normal 512 0 0 0 0 0 0 0 0 0 16\n")
    (guest / "proc/zoneinfo").write_text("Node 0, zone Normal\n  pagesets\n    cpu: 0\n      count: 8192\n")
    done = tend(program, guest, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "tend: order 9 leaves 2 MiB of what is free, and 32 MiB are on per-CPU lists",
        "tend: would write 1000000 to /proc/sys/vm/percpu_pagelist_high_fraction",
    ]


@pytest.mark.parametrize(("low", "left"), [(1023, "3 MiB"), (1024, "71 MiB")])
def test_a_zone_with_little_free_reports_nothing(program: Program, guest: Path, low: int, left: str) -> None:
    """32 blocks of the order and the low watermark (mm/page_reporting.c), which other zones have otherwise."""
    zones = {"DMA": "768 0 0 0 0 0 0 0 0 0 0", "Normal": "0 0 0 0 0 0 0 0 0 2 16"}
    lows = {"DMA": 0, "Movable": 99999, "Normal": low}
    rows = [f"Node 0, zone {zone:>8} {counts}\n" for zone, counts in zones.items()]
    (guest / "proc/buddyinfo").write_text("".join(rows))
    texts = [f"Node 0, zone {zone:>8}\n  pages free 1\n        low      {pages}\n" for zone, pages in lows.items()]
    (guest / "proc/zoneinfo").write_text("".join(texts))
    done = tend(program, guest, "--dry-run", "--worth", "1")
    assert f"order 9 leaves {left} of what is free" in done.stdout


def test_what_the_kernel_refuses_is_told_and_the_rest_is_done(program: Program, guest: Path) -> None:
    """A kernel without compaction has the order lowered all the same; here that is not asked for."""
    compaction = guest / "proc/sys/vm/compact_memory"
    compaction.unlink()
    compaction.mkdir()
    done = subprocess.run(
        command(program, "--once", "--idle", "1", "--least-order", "9"),
        env={**os.environ, "TEND_ROOT": str(guest)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot write 1 to /proc/sys/vm/compact_memory" in done.stdout
    assert "done after 0 interrupts of the balloon; 32 MiB are left" in done.stdout


def test_a_signal_while_it_puts_back_is_ignored(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is impatient has the guest as it was, too."""
    put_back = Guest.put_back

    def change_and_end(tender: tend_py.Tender) -> None:
        tender.guest.keep_state()
        tender.guest.write(0, tender.guest.order_file)
        os.kill(os.getpid(), signal.SIGTERM)

    def put_back_at_a_signal(self: Guest) -> bool:
        if self.state_file.exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return put_back(self)

    monkeypatch.setenv("TEND_ROOT", str(guest))
    monkeypatch.setattr(tend_py.Tender, "watch", change_and_end)
    monkeypatch.setattr(Guest, "put_back", put_back_at_a_signal)
    before = {number: signal.getsignal(number) for number in tend_py.SIGNALS}
    try:
        with pytest.raises(SystemExit) as ended:
            tend_py.main([])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == 0
    assert settings(guest) == SETTINGS
    assert list((guest / "run").iterdir()) == []


def test_what_cannot_be_put_back_is_left_to_the_next_run(program: Program, guest: Path) -> None:
    """What was written down stays where it is; status 1."""
    (guest / "run/pagetide-tend").write_text("9 0\n")
    fraction = guest / "proc/sys/vm/percpu_pagelist_high_fraction"
    fraction.unlink()
    fraction.mkdir()
    assert tend(program, guest).returncode == 1
    assert (guest / "run/pagetide-tend").read_text() == "9 0\n"


def test_what_was_changed_before_a_kill_is_put_back_at_the_next_start(program: Program, guest: Path) -> None:
    """The order and the limit of the per-CPU lists, as they were written down; what was only half written goes, too."""
    (guest / ORDER).write_text("0\n")
    (guest / "run/pagetide-tend.new").write_text("9")
    (guest / "proc/sys/vm/percpu_pagelist_high_fraction").write_text("1000000\n")
    (guest / "run/pagetide-tend").write_text("9 0\n")
    environment = {**os.environ, "TEND_ROOT": str(guest)}
    with subprocess.Popen(command(program), env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "tending a guest that reports from order 9" not in (line := process.stdout.readline()):
            assert line, "it ended"
        process.terminate()
        process.communicate(timeout=60)
    assert settings(guest) == SETTINGS
    assert list((guest / "run").iterdir()) == []


@pytest.mark.parametrize("order", ["-1", "4294967295 x"])
def test_a_guest_without_reporting_says_so(program: Program, guest: Path, order: str) -> None:
    """No balloon that reports: one sentence, status 1."""
    (guest / ORDER).write_text(order + "\n")
    done = tend(program, guest, "--dry-run")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing reports in this guest" in done.stderr


@pytest.mark.parametrize("arguments", [["--idle"], ["--worth", "x"], ["--ofter"]])
def test_wrong_options_are_one_sentence(program: Program, guest: Path, arguments: list[str]) -> None:
    """Status 1, and nothing is done."""
    done = tend(program, guest, *arguments)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


class Kernel(threading.Thread):
    """Reports ten times whenever the order of a guest's files is another one. Compaction brings nothing."""

    def __init__(self, guest: Path) -> None:
        super().__init__()
        self._guest = guest
        self.over = threading.Event()
        self.orders = ["9"]

    def run(self) -> None:
        """Look at what is written, until it is over."""
        while not self.over.wait(0.01):
            order = (self._guest / ORDER).read_text().strip()
            if order and order != self.orders[-1]:
                self.orders.append(order)
                new = self._guest / "proc/interrupts.new"
                new.write_text(f"24: {10 * len(self.orders)} PCI-MSI virtio0-reporting_vq\n")
                new.rename(self._guest / "proc/interrupts")


def tended(program: Program, guest: Path) -> tuple[str, list[str]]:
    """What the script says and the first orders that it sets, tending this guest once."""
    (guest / "proc/buddyinfo").write_text("Node 0, zone Normal 16384 0 0 0 0 2048 0 0 0 0 10\n")
    (guest / "proc/interrupts").write_text("24: 10 PCI-MSI virtio0-reporting_vq\n")
    kernel = Kernel(guest)
    kernel.start()
    try:
        done = subprocess.run(
            command(program, "--once", "--idle", "1"),
            env={**os.environ, "TEND_ROOT": str(guest)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    finally:
        kernel.over.set()
        kernel.join()
    assert done.stderr == ""
    assert settings(guest)[ORDER] == "9"
    assert settings(guest)["proc/sys/vm/percpu_pagelist_high_fraction"] == "0"
    assert list((guest / "run").iterdir()) == []
    return done.stdout, kernel.orders[:3]


def test_all_programs_do_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    """On the same kernel they say the same, word by word, lower the order by the same steps and put it back."""
    found: dict[str, tuple[str, list[str]]] = {}

    def run(program: Program) -> None:
        found[program] = tended(program, made_guest(tmp_path_factory.mktemp(program)))

    threads = [threading.Thread(target=run, args=(program,)) for program in get_args(Program)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["py"] == found["sh"] == found["busybox"]
    text, orders = found["sh"]
    assert orders == ["9", "4", "0"]
    assert "order 9 leaves 320 MiB of what is free, and 2 MiB are on per-CPU lists" in text
    assert "compacted: order 9 takes 0 of those 320 MiB now" in text
    assert "order 9 lowered to 4, which takes 256 MiB more" in text
    assert "order 9 lowered to 0, which takes 64 MiB more" in text
    assert "done after 20 interrupts of the balloon; 0 MiB are left" in text


def test_a_signal_puts_everything_back(program: Program, guest: Path) -> None:
    """Whoever stops it in the middle has the guest as it was."""
    (guest / "proc/buddyinfo").write_text("Node 0, zone Normal 16384 0 0 0 0 2048 0 0 0 0 10\n")
    process = subprocess.Popen(
        command(program, "--idle", "1"),
        env={**os.environ, "TEND_ROOT": str(guest)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "lowered to 4" not in process.stdout.readline():
        assert process.poll() is None
    process.terminate()
    process.stdout.read()
    assert process.wait() == 0
    assert settings(guest)[ORDER] == "9"
    assert list((guest / "run").iterdir()) == []
    process.stdout.close()


@pytest.mark.parametrize("is_free", [True, False])
def test_a_look_of_busyboxs_is_no_process(guest: Path, is_free: bool) -> None:
    """Where the name that it needs is taken, each is one."""
    if not is_free:
        (guest / "run/pagetide-tend.never").mkdir()
    with subprocess.Popen(
        command("busybox"), env={**os.environ, "TEND_ROOT": str(guest)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun to look
        until_s, seen = time.monotonic() + 2.5, False
        while time.monotonic() < until_s and not seen:
            seen = bool(psutil.Process(process.pid).children())
            time.sleep(0.01)
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert seen != is_free
