"""What a scrape of many guests takes: time for who scrapes, the loop's time, and memory of both processes."""

import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.host.many_guests import SOCKETS, PlayedGuest, ServerProcess, server_process
from benchmarks.rows import Row
from pagetide.operate.endpoint_process import METRICS, Address, EndpointProcess, listen
from pagetide.processes import process_cpu_s

_GUESTS = 1000
_SCRAPES = 5
_EVERY_S = 4.0
"""More often, and the daemon has those wait who ask it for so much."""

_OPENMETRICS = "application/openmetrics-text;version=1.0.0"


class NoLoop:
    """Watches nothing: nobody ends the process here."""

    def wake_by(self, fd: int, then: Callable[[], None] = lambda: None) -> None:
        """Forget it."""

    def no_wake_by(self, fd: int) -> None:
        """It was not watched."""


def _scrape(port: int) -> tuple[float, int]:
    """Seconds, and bytes."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": _OPENMETRICS})
    start_s = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        size_bytes = len(answer.read())
    return time.perf_counter() - start_s, size_bytes


def _scrapes(server: ServerProcess, control: Path, count: int) -> Iterator[Row]:
    with ExitStack() as resources:
        listener = listen(Address("127.0.0.1", 0), beside_another=False)
        metrics = EndpointProcess(METRICS, listener, control, NoLoop())
        resources.callback(metrics.close)
        port = listener.getsockname()[1]
        teller = ServerProcess((), metrics.pid)
        _scrape(port)
        before_bytes = teller.resident_bytes
        for number in range(count):
            PlayedGuest(server.paths[number % SOCKETS], 2 << 20, resources).keep_busy()
        held_bytes = server.resident_bytes
        times = []
        cpu_s = process_cpu_s(server.pid) or 0.0
        for _ in range(_SCRAPES):
            time.sleep(_EVERY_S)
            times.append(_scrape(port))
        loop_s = ((process_cpu_s(server.pid) or 0.0) - cpu_s) / _SCRAPES
        more_bytes = teller.resident_bytes - before_bytes + server.resident_bytes - held_bytes
    name = f"scrape of {count} guests"
    yield Row(name, 1e3 * median(took_s for took_s, _ in times), "ms", at_most=50.0)
    yield Row(f"{name}, the loop's time in pieces", 1e3 * loop_s, "ms")
    yield Row(f"{name}, text", times[-1][1] / (1 << 20), "MiB")
    yield Row(f"{name}, memory more than with none", more_bytes / (1 << 20), "MiB", at_most=20.0)


def run() -> Iterator[Row]:
    """Measure; one row a figure."""
    control = Path(f"/tmp/scraping-{os.getpid()}.sock")
    with server_process(Path("/tmp"), control) as server:
        yield from _scrapes(server, control, _GUESTS)
