"""libvirt as a source: a domain's definition and statistics, by a read-only connection and libvirt's own package.

That package is an optional extra (`pip install '.[libvirt]'`, Debian's python3-libvirt): it is built against the
libvirt that is installed. A read-only connection is open to any user at qemu:///system, and changes nothing.
"""

import importlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from pagetide.operate.host.monitor_facts import MonitorFacts, VirtioMem
from pagetide.operate.sizes import LARGEST

_URIS = ("qemu:///system", "qemu:///session")
_TIMEOUT_S = 5.0
_KIB = 1024


class LibvirtError(Exception):
    """libvirt cannot be asked, or has no such domain; the message says why."""


class Domain(NamedTuple):
    """A running domain.

    Attributes:
        uuid: which QEMU has on its command line.
        facts: what libvirt says of it.
    """

    uuid: str
    facts: MonitorFacts


def ask_libvirt(name: str, *, timeout_s: float = _TIMEOUT_S) -> Domain:
    """A running domain, by its name or its UUID.

    LIBVIRT_DEFAULT_URI names the connection, as for virsh; without it the system's is tried, and then the user's own.

    Raises:
        LibvirtError: libvirt's package is not there, nobody answers in time, or there is no such domain.
    """
    try:
        libvirt = importlib.import_module("libvirt")
    except ImportError as error:
        raise LibvirtError(
            "libvirt is not asked, since its Python package is missing "
            "(in pagetide's source folder: pip install '.[libvirt]')"
        ) from error
    told: list[Domain | LibvirtError] = []

    def ask() -> None:
        try:
            told.append(_ask(libvirt, name))
        except LibvirtError as error:
            told.append(error)

    # its calls have no time-out of their own
    asking = threading.Thread(target=ask, name="libvirt", daemon=True)
    asking.start()
    asking.join(timeout_s)
    if not told:
        raise LibvirtError(f"libvirt does not answer within {timeout_s:g} s")
    if isinstance(told[0], LibvirtError):
        raise told[0]
    return told[0]


def _ask(libvirt: Any, name: str) -> Domain:
    libvirt.registerErrorHandler(lambda *_: None, None)  # or it prints each error
    uri = os.environ.get("LIBVIRT_DEFAULT_URI")
    reasons = []
    for each in (uri,) if uri else _URIS:
        try:
            connection = libvirt.openReadOnly(each)
        except libvirt.libvirtError as error:
            reasons.append(f"libvirt says: {error}")
            continue
        try:
            domain = _look_up(libvirt, connection, name)
            if not domain.isActive():
                raise LibvirtError(f"libvirt's domain {name!r} is not running")
            definition, statistics = domain.XMLDesc(), domain.memoryStats()
            version = f"{connection.getVersion() // 1000000}.{connection.getVersion() // 1000 % 1000}"
            return Domain(domain.UUIDString(), domain_facts(version, definition, statistics, time.time()))
        except libvirt.libvirtError as error:
            reasons.append(f"libvirt says: {error}")
        except LibvirtError as error:
            reasons.append(f"{error} ({each})")
        finally:
            connection.close()
    raise LibvirtError("; ".join(reasons))


def _look_up(libvirt: Any, connection: Any, name: str) -> Any:
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError:
        try:
            return connection.lookupByUUIDString(name)
        except libvirt.libvirtError:
            raise LibvirtError(f"libvirt has no domain {name!r}") from None


def domain_facts(version: str, definition: str, statistics: dict[str, int], now_s: float) -> MonitorFacts:
    """What a domain's live definition (formatdomain) and its statistics (virDomainMemoryStats) say.

    Args:
        version: the hypervisor's.
        definition: XML.
        statistics: sizes in KiB, by libvirt's names.
        now_s: the time, as `last_update` has it.

    Raises:
        LibvirtError: the definition is none.
    """
    try:
        root = ET.fromstring(definition)  # noqa: S314 - the daemon's, and expat bounds expansion
        balloon = root.find("./devices/memballoon")
        has_balloon = balloon is not None and balloon.get("model") != "none"
        period = None if balloon is None else balloon.find("stats")
        last_s = statistics.get("last_update", 0)
        actual_kib = statistics.get("actual")
        return MonitorFacts(
            source="libvirt",
            version=version,
            has_balloon=has_balloon,
            offers_reporting=None if not has_balloon or balloon is None else balloon.get("freePageReporting") == "on",
            ram_bytes=_bytes(root.find("memory")),
            actual_bytes=None if actual_kib is None or not has_balloon else _bounded(actual_kib * _KIB),
            virtio_mem=tuple(_virtio_mem(root)),
            statistics_age_s=max(0, int(now_s) - last_s) if last_s else None,
            statistics_interval_s=_bounded(int(period.get("period", "0"))) if period is not None else 0,
        )
    except (ET.ParseError, ValueError) as error:
        raise LibvirtError(f"libvirt describes the domain in a way that is not understood: {error}") from error


def _virtio_mem(root: ET.Element) -> Iterator[VirtioMem]:
    for device in root.findall("./devices/memory[@model='virtio-mem']"):
        target = device.find("target")
        if target is not None:
            size_bytes = _bytes(target.find("current"))
            yield VirtioMem(
                size_bytes=size_bytes,
                requested_bytes=_bytes(target.find("requested")),
                max_bytes=_bytes(target.find("size")),
            )


def _bytes(element: ET.Element | None) -> int:
    """A size of a live definition, which libvirt writes in KiB."""
    if element is None or element.text is None or element.get("unit", "KiB") != "KiB":
        raise ValueError("a size is missing, or is not in KiB")
    return _bounded(int(element.text) * _KIB)


def _bounded(value: int) -> int:
    return min(max(0, value), LARGEST)
