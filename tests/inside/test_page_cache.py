"""`pagetide tend --cache`, in the time of a guest that is made of files: what page cache goes, and when none does."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from pagetide.inside import tend
from pagetide.inside.guest import BusyError, Guest

RECLAIM = "sys/fs/cgroup/memory.reclaim"
FILES = {
    "sys/module/page_reporting/parameters/page_reporting_order": "9\n",
    RECLAIM: "",
    "proc/stat": "cpu 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0\n",
    "proc/buddyinfo": "Node 0, zone Normal 0 0 0 0 0 0 0 0 0 0 20\n",
    "proc/zoneinfo": "Node 0, zone Normal\n",
    "proc/interrupts": "24: 5 PCI-MSI virtio0-reporting_vq\n",
    "proc/swaps": "Filename Type Size Used Priority\n",
}
MEMORY_KIB, CACHE_KIB, FLOOR_KIB = 1_000_000, 320_000, 100_000


class Kernel:
    """Does what is written to memory.reclaim whenever a second has passed.

    Attributes:
        cache_kib: page cache that there is.
        in_use_kib: what of it never goes.
        waited_us: for how long some task has waited for memory.
        wait_us: how much is added to that each second.
        busy: whether the next second finds the guest busy.
        orders: what was written.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.now_s, self.orders = root, 0.0, list[str]()
        self.cache_kib, self.in_use_kib, self.waited_us, self.wait_us, self.busy = CACHE_KIB, 0, 0, 0, False
        self._used, self._told = 0, dict[str, str]()
        self.tell()

    def sleep(self, seconds: float) -> None:
        """What happens meanwhile."""
        self.now_s += seconds
        self.waited_us += self.wait_us
        self._used += 100 if self.busy else 0
        order = (self.root / RECLAIM).read_text()
        if order:
            self.orders.append(order)
            (self.root / RECLAIM).write_text("")
            self.cache_kib = max(self.in_use_kib, self.cache_kib - int(order.partition("K")[0]))
        self.tell()

    def tell(self) -> None:
        """Write what the kernel's files say."""
        texts = {
            "proc/meminfo": f"MemTotal: {MEMORY_KIB} kB\nActive(file): 20000 kB\n"
            f"Inactive(file): {self.cache_kib - 20000} kB\n",
            "proc/pressure/memory": f"some avg10=0.00 avg60=0.00 avg300=0.00 total={self.waited_us}\n",
            "proc/stat": f"cpu {self._used} 0 0 0 0 0 0\ncpu0 {self._used} 0 0 0 0 0 0\n",
        }
        for name, text in texts.items():
            if self._told.get(name) != text:
                (self.root / name).write_text(text)
        self._told = texts


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A guest's kernel, whose time is time."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "proc/pressure").mkdir()
    (tmp_path / "run").mkdir()
    kernel = Kernel(tmp_path)
    monkeypatch.setattr(time, "sleep", kernel.sleep)
    monkeypatch.setattr(time, "monotonic", lambda: kernel.now_s)
    return kernel


def tender(kernel: Kernel, *, dry_run: bool = False) -> tend.Tender:
    """What leaves a tenth of memory to page cache."""
    guest = Guest(str(kernel.root), dry_run=dry_run)
    tend.check(guest)
    return tend.Tender(guest, tend.read_options(["--cache", "10"]))


def test_page_cache_goes_little_by_little_down_to_its_share(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """A 32nd of it a second, never below the floor, and no swapping."""
    tender(kernel).tend()
    assert FLOOR_KIB <= kernel.cache_kib < FLOOR_KIB + 1024
    assert kernel.orders[0] == "10000K swappiness=0"
    assert 32 < kernel.now_s < 64
    assert "tend: page cache given back: 214 MiB; 97 MiB stay" in capsys.readouterr().out


def test_a_dry_run_says_how_much_would_go(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """And where it would be said; nothing goes."""
    tender(kernel, dry_run=True).tend()
    first = "tend: would give back 214 of 312 MiB of page cache through /sys/fs/cgroup/memory.reclaim"
    assert capsys.readouterr().out.splitlines()[0].startswith(first)
    assert (kernel.orders, kernel.now_s) == ([], 0)


def test_little_beyond_the_floor_is_left(kernel: Kernel) -> None:
    """What is not worth it stays."""
    kernel.cache_kib = FLOOR_KIB + 15 * 1024
    kernel.tell()
    tender(kernel).tend()
    assert kernel.orders == []


@pytest.mark.parametrize(("wait_us", "second_kib"), [(500, [4843]), (1000, [])])
def test_the_more_tasks_wait_the_less_goes(kernel: Kernel, wait_us: int, second_kib: list[int]) -> None:
    """Half a thousandth of the time halves a step; from a thousandth on there is none."""
    kernel.wait_us = wait_us
    tender(kernel).tend()
    assert kernel.orders[:2] == [f"{kib}K swappiness=0" for kib in [10000, *second_kib]]


def test_what_tasks_waited_for_since_the_last_time_stays(kernel: Kernel) -> None:
    """The floor is what page cache there is then."""
    it = tender(kernel)
    it.tend()
    kernel.orders.clear()
    kernel.cache_kib, kernel.waited_us = 200_000, 1_000_000
    kernel.sleep(60)
    it.tend()
    assert kernel.orders == []
    kernel.cache_kib = 260_000
    kernel.sleep(60)
    it.tend()
    assert 200_000 <= kernel.cache_kib < 200_000 + 1024


def test_page_cache_in_use_ends_it(kernel: Kernel) -> None:
    """A step that brings less than a quarter is the last one."""
    kernel.in_use_kib = 300_000
    tender(kernel).tend()
    assert kernel.cache_kib == 300_000
    assert len(kernel.orders) == 3


def test_a_guest_that_gets_busy_keeps_its_page_cache(kernel: Kernel) -> None:
    """After the step in which it did."""
    kernel.busy = True
    with pytest.raises(BusyError):
        tender(kernel).tend()
    assert len(kernel.orders) == 1


def refusing(write: Callable[[Path, str], int], number: int, word: str) -> Callable[[Path, str], int]:
    """Writes, but for texts with this word, which the kernel refuses."""

    def wrapped(path: Path, text: str) -> int:
        if word in text and path.match(RECLAIM):
            raise OSError(number, "refused")
        return write(path, text)

    return wrapped


def test_a_kernel_without_swappiness_takes_the_number_if_nothing_can_be_swapped(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With swap nothing goes, in a sentence."""
    monkeypatch.setattr(Path, "write_text", refusing(Path.write_text, errno.EINVAL, "swappiness"))
    tender(kernel).tend()
    assert kernel.orders[0] == "10000K"
    kernel.orders.clear()
    kernel.cache_kib = CACHE_KIB
    (kernel.root / "proc/swaps").write_text("Filename Type\n/swap file\n")
    kernel.tell()
    tender(kernel).tend()
    assert kernel.orders == []
    assert "page cache stays: the kernel takes no such order, or would swap" in capsys.readouterr().out


def test_a_kernel_without_swap_cannot_swap(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no file that says where to."""
    (kernel.root / "proc/swaps").unlink()
    monkeypatch.setattr(Path, "write_text", refusing(Path.write_text, errno.EINVAL, "swappiness"))
    tender(kernel).tend()
    assert kernel.orders[0] == "10000K"


def test_more_than_all_of_memory_is_refused_in_a_sentence(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it may stay; a share above that is a slip."""
    monkeypatch.setenv("TEND_ROOT", str(kernel.root))
    assert tend.main(["--cache", "100", "--dry-run"]) == 0
    with pytest.raises(SystemExit) as ended:
        tend.main(["--cache", "101", "--dry-run"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "tend: argument --cache: more than 100 percent: '101'\n"


def test_less_than_was_asked_is_no_refusal(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says EAGAIN then; here nothing at all went."""
    monkeypatch.setattr(Path, "write_text", refusing(Path.write_text, errno.EAGAIN, "K"))
    tender(kernel).tend()
    assert kernel.now_s == 1


@pytest.mark.parametrize("missing", [RECLAIM, "proc/pressure/memory"])
def test_a_kernel_that_cannot_is_refused_in_a_sentence(
    kernel: Kernel, missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a file to write to, or one that says who waits: status 1."""
    (kernel.root / missing).unlink()
    monkeypatch.setenv("TEND_ROOT", str(kernel.root))
    assert tend.main(["--cache", "10"]) == 1
    told = capsys.readouterr()
    assert (told.out, len(told.err.splitlines())) == ("", 1)
    assert told.err.startswith("tend: page cache ")
    assert missing in told.err


class OverError(Exception):
    """The time is."""


def test_a_guest_that_is_never_idle_sees_no_action_in_ten_minutes(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a busy second in five nothing is said and nothing written, whatever is in pieces; with one in six it is."""
    (kernel.root / "proc/buddyinfo").write_text("Node 0, zone Normal 16384 0 0 0 0 2048 0 0 0 0 10\n")
    said: list[str] = []
    monkeypatch.setattr(tend, "log", said.append)
    every, until_s = 5, 600

    def sleep(seconds: float) -> None:
        for _ in range(int(seconds)):
            kernel.busy = kernel.now_s % every == 0
            kernel.sleep(1)
        if kernel.now_s >= until_s:
            raise OverError

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(OverError):
        tender(kernel).watch()
    assert (said, kernel.orders) == ([], [])
    kernel.now_s, every, until_s = 0, 6, 30
    with pytest.raises(OverError):
        tender(kernel).watch()
    assert said


def test_a_busy_guest_is_looked_at_seldom_and_an_idle_one_soon(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every four seconds while it is busy; nine seconds after that at most something is done."""
    (kernel.root / "proc/buddyinfo").write_text("Node 0, zone Normal 16384 0 0 0 0 2048 0 0 0 0 10\n")
    for busy_s in range(100, 104):
        done_s: list[float] = []
        looks: list[float] = []
        kernel.now_s, tending = 0, tender(kernel)
        tending.cache = None

        def sleep(seconds: float, *, busy_s: int = busy_s, looks: list[float] = looks) -> None:
            looks.append(kernel.now_s)
            for _ in range(int(seconds)):
                kernel.busy = kernel.now_s < busy_s
                kernel.sleep(1)

        def log(_: str, *, done_s: list[float] = done_s) -> NoReturn:
            done_s.append(kernel.now_s)
            raise OverError

        monkeypatch.setattr(time, "sleep", sleep)
        monkeypatch.setattr(tend, "log", log)
        with pytest.raises(OverError):
            tending.watch()
        assert sum(look < 100 for look in looks) <= 26
        assert busy_s + 5 <= done_s[0] <= busy_s + 9


def test_what_is_done_is_looked_at_again_once_a_minute_or_when_the_guest_was_busy(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that always does a little is no busier for being looked at for longer; one busy second is one."""
    tending = tender(kernel)
    tending.cache, tending.options.worth, tending.worth_kib = None, 1000, 1000 << 10
    load = {"each second": 20, "busy at": -1}

    def sleep(seconds: float) -> None:
        for _ in range(int(seconds)):
            kernel._used += 100 if kernel.now_s == load["busy at"] else load["each second"]
            kernel.sleep(1)
        if kernel.now_s > 150:
            raise OverError

    done_s: list[float] = []
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(tending, "tend", lambda: done_s.append(kernel.now_s))
    with pytest.raises(OverError):
        tending.watch()
    assert done_s == [5, pytest.approx(70, abs=4), pytest.approx(135, abs=4)]
    for used in (0, 20):
        kernel.now_s, load = 0, {"each second": used, "busy at": 30}
        done_s.clear()
        with pytest.raises(OverError):
            tending.watch()
        assert done_s[:2] == [5, pytest.approx(38, abs=3)]
