"""QEMU's monitor as a source. Only commands that look, and none whose name begins with `x-`.

One client at a time: whoever comes second gets no greeting until the first has left. So the greeting is not waited for
longer than a moment.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from pagetide.machine.qemu.qmp import Qmp, QmpError
from pagetide.operate.host.monitor_facts import MemoryBackend, MonitorFacts, VirtioMem
from pagetide.operate.sizes import LARGEST

ASK_MAX_S = 0.8
"""How long an answer is waited for."""

_INTERVAL = "guest-stats-polling-interval"
_BALLOON_TYPES = ("virtio-balloon",)


class MonitorError(Exception):
    """The monitor cannot be asked; the message says why."""


def ask_monitor(sock: socket.socket) -> MonitorFacts:
    """What QEMU says at this socket, which is connected to its monitor, and closed then.

    Raises:
        MonitorError: no QEMU answers in time.
    """
    with contextlib.closing(Qmp(sock, timeout_s=ASK_MAX_S)) as monitor:
        try:
            # nothing was said of how large or how long it may be
            return msgspec.convert(msgspec.to_builtins(_facts(monitor)), MonitorFacts)
        except QmpError as error:
            raise MonitorError(str(error)) from error
        except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise MonitorError(f"this is no monitor of a QEMU that can be asked: {error}") from error


def _facts(monitor: Qmp) -> MonitorFacts:
    version = monitor.ask("query-version")["qemu"]
    size = monitor.ask("query-memory-size-summary")
    device = _find_balloon(monitor)
    offers = actual_bytes = age_s = interval_s = None
    if device is not None:
        age_s, interval_s = _statistics(monitor, device)
        with contextlib.suppress(QmpError):
            offers = bool(monitor.ask("qom-get", path=device, property="free-page-reporting"))
        with contextlib.suppress(QmpError):  # not active: no driver yet
            actual_bytes = int(monitor.ask("query-balloon")["actual"])
    return MonitorFacts(
        version=".".join(str(int(version[part])) for part in ("major", "minor", "micro")),
        has_balloon=device is not None,
        offers_reporting=offers,
        ram_bytes=int(size["base-memory"]) + int(size.get("plugged-memory", 0)),
        actual_bytes=actual_bytes,
        backends=tuple(_backends(monitor.ask("query-memdev"))),
        virtio_mem=tuple(_virtio_mem(monitor.ask("query-memory-devices"))),
        statistics_age_s=age_s,
        statistics_interval_s=interval_s,
        migration=_migration(monitor.ask("query-migrate")),
        run_state=str(monitor.ask("query-status")["status"]),
        takes_snapshot=_takes_snapshot(monitor.ask("query-migrate-capabilities")),
    )


def _statistics(monitor: Qmp, device: str) -> tuple[int | None, int | None]:
    """How old the guest's statistics are, and how often they are asked for; in whole seconds, None if not known."""
    age_s = interval_s = None
    with contextlib.suppress(QmpError):
        last_s = int(monitor.ask("qom-get", path=device, property="guest-stats")["last-update"])
        age_s = max(0, int(time.time()) - last_s) if last_s else None
    with contextlib.suppress(QmpError):
        interval_s = min(max(0, int(monitor.ask("qom-get", path=device, property=_INTERVAL))), LARGEST)
    return age_s, interval_s


def _backends(listed: Any) -> Iterator[MemoryBackend]:
    for entry in listed:
        shared = entry.get("share")
        yield MemoryBackend(
            size_bytes=int(entry["size"]),
            is_shared=None if shared is None else bool(shared),
            is_preallocated=bool(entry["prealloc"]),
        )


def _virtio_mem(listed: Any) -> Iterator[VirtioMem]:
    for entry in listed:
        if entry["type"] == "virtio-mem":
            sizes = entry["data"]
            yield VirtioMem(
                size_bytes=int(sizes["size"]),
                requested_bytes=int(sizes["requested-size"]),
                max_bytes=int(sizes["max-size"]),
            )


def _migration(told: Any) -> str | None:
    status = told.get("status")
    return None if status in {None, "none"} else str(status)


def _takes_snapshot(listed: Any) -> bool:
    return any(entry["capability"] == "background-snapshot" and entry["state"] is True for entry in listed)


def _find_balloon(monitor: Qmp) -> str | None:
    """Where the balloon is in QEMU's object tree: devices with a name of their own, and those without."""
    for folder in ("/machine/peripheral", "/machine/peripheral-anon"):
        with contextlib.suppress(QmpError):
            for entry in _children(monitor.ask("qom-list", path=folder)):
                if entry["type"].removeprefix("child<").startswith(_BALLOON_TYPES):
                    return f"{folder}/{entry['name']}"
    return None


def _children(listed: Any) -> list[dict[str, str]]:
    return [{"type": str(entry["type"]), "name": str(entry["name"])} for entry in listed]
