"""What the page of 64 guests takes, at two looks a second: the time of its process and of the daemon's loop."""

import http.client
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.host.many_guests import SOCKETS, PlayedGuest, ServerProcess, server_process
from benchmarks.host.scraping import NoLoop
from benchmarks.rows import Row
from pagetide import linux
from pagetide.host.memory.page_map import HELD, PARTIAL
from pagetide.operate.endpoint_process import Address, Endpoint, EndpointProcess, listen
from pagetide.operate.watch.guest_map import DAEMON_BURST_S, DAEMON_SHARE, DaemonMap, GuestMap
from pagetide.operate.web.recorder import LOOK_S
from pagetide.processes import process_cpu_s
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SIZE_BYTES

_GUESTS = 64
_GUEST_BYTES = 2 << 20
_SHOWN_S = 20.0
_LARGE_BYTES = 2 << 30
_WHOLE_BYTES = 64 << 30


def _take_looks(port: int, for_s: float) -> tuple[int, int]:
    """Read what a browser would, for so long: how many looks came, and how many bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=for_s)
    connection.request("GET", "/api/looks")
    answer = connection.getresponse()
    looks = size_bytes = 0
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        line = answer.readline()
        looks += line.startswith(b"data:")
        size_bytes += len(line)
    connection.close()
    return looks, size_bytes


def _shown(server: ServerProcess, control: Path) -> Iterator[Row]:
    with ExitStack() as resources:
        listener = listen(Address("127.0.0.1", 0), beside_another=False)
        endpoint = Endpoint("pagetide.operate.web.endpoint", "the page", "/", b'{"token":""}\n')
        page = EndpointProcess(endpoint, listener, control, NoLoop())
        resources.callback(page.close)
        port = listener.getsockname()[1]
        for number in range(_GUESTS):
            PlayedGuest(server.paths[number % SOCKETS], _GUEST_BYTES, resources).keep_busy()
        _take_looks(port, 2.0)
        before_s = [process_cpu_s(pid) or 0.0 for pid in (page.pid, server.pid)]
        start_s = time.monotonic()
        looks, size_bytes = _take_looks(port, _SHOWN_S)
        took_s = time.monotonic() - start_s
        page_s, loop_s = (
            (process_cpu_s(pid) or 0.0) - before for pid, before in zip((page.pid, server.pid), before_s, strict=True)
        )
        memory_mib = ServerProcess((), page.pid).resident_bytes / (1 << 20)
    name = f"page of {_GUESTS} guests"
    yield Row(f"{name}, looks", looks / took_s, f"a second, of {1 / LOOK_S:g}")
    yield Row(f"{name}, its process", 100 * page_s / took_s, "% of a processor", at_most=5.0)
    yield Row(f"{name}, the daemon", 100 * loop_s / took_s, "% of a processor")
    yield Row(f"{name}, to one browser", size_bytes / took_s / 1024, "KiB a second")
    yield Row(f"{name}, its process after {_SHOWN_S:g} s", memory_mib, "MiB")


def _mapped(server: ServerProcess, control: Path) -> Iterator[Row]:
    """What a large guest's map takes of the daemon's time; all of it is held but for a page in the middle."""
    with ExitStack() as resources:
        ram = PlayedGuest(server.paths[0], _LARGE_BYTES, resources).ram
        os.posix_fallocate(ram.fd, 0, _LARGE_BYTES)
        linux.punch_hole(ram.fd, _LARGE_BYTES // 2, PAGE_SIZE_BYTES)
        page_map = GuestMap(DaemonMap(control, Path(server.paths[0]).stem))
        for name in ("first", "second", "third"):
            took_s = -(process_cpu_s(server.pid) or 0.0)
            while not page_map.read():
                pass
            took_s += process_cpu_s(server.pid) or 0.0
            assert page_map.counts() == {PARTIAL: 1, HELD: _LARGE_BYTES // HUGE_PAGE_BYTES - 1}
            whole_s = max(0.0, took_s * _WHOLE_BYTES / _LARGE_BYTES - DAEMON_BURST_S) / DAEMON_SHARE
            told = f"{name} map of {_LARGE_BYTES >> 30} GiB that are held"
            yield Row(f"{told}, the daemon", 1e3 * took_s, "ms")
            yield Row(f"{told}, of 64 GiB at the page's share", whole_s, "s, by arithmetic")


def run() -> Iterator[Row]:
    """Measure; one row a figure."""
    control = Path(f"/tmp/shown-{os.getpid()}.sock")
    with server_process(Path("/tmp"), control) as server:
        yield from _mapped(server, control)
        yield from _shown(server, control)
