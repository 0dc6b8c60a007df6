"""Firecracker's API as a source: its machine's configuration and its balloon, by HTTP over a Unix socket.

As its public documentation has them (docs/ballooning.md and the API's description, 1.14): `free_page_reporting` is
there from 1.14 on, and the statistics where an interval was set. Only GET is sent.
"""

from pathlib import Path
from typing import Annotated

import msgspec

from pagetide.operate.sizes import Count, Size
from pagetide.units import MIB

_MIB_MAX = 1 << 40
_Mib = Annotated[int, msgspec.Meta(ge=0, le=_MIB_MAX)]


class FirecrackerError(Exception):
    """The API cannot be asked; the message says why."""


class FirecrackerFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the API says.

    Attributes:
        ram_bytes: the guest's memory.
        has_huge_pages: whether that is in huge pages of hugetlbfs.
        has_balloon: whether there is a balloon.
        offers_reporting: whether it offers free page reporting; None without one.
        target_bytes: what is to be in it; None without one.
        actual_bytes: what is in it, by its statistics; None without these.
        available_bytes: what the guest could use, by the same.
        statistics_interval_s: how often they are asked for; 0 for never.
    """

    ram_bytes: Size
    has_huge_pages: bool
    has_balloon: bool
    offers_reporting: bool | None
    target_bytes: Size | None
    actual_bytes: Size | None
    available_bytes: Size | None
    statistics_interval_s: Count


class _Machine(msgspec.Struct):
    mem_size_mib: _Mib
    huge_pages: str = "None"


class _Balloon(msgspec.Struct):
    amount_mib: _Mib
    stats_polling_interval_s: Count = 0
    free_page_reporting: bool = False


class _Statistics(msgspec.Struct):
    actual_mib: _Mib
    available_memory: Size | None = None


def firecracker_facts(machine: bytes, balloon: bytes | None, statistics: bytes | None) -> FirecrackerFacts:
    """What the answers to /machine-config, /balloon and /balloon/statistics say; None for one that was refused.

    Raises:
        FirecrackerError: one is not of its form.
    """
    try:
        config = msgspec.json.decode(machine, type=_Machine)
        device = None if balloon is None else msgspec.json.decode(balloon, type=_Balloon)
        told = None if statistics is None else msgspec.json.decode(statistics, type=_Statistics)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FirecrackerError(f"what answers is no Firecracker: {error}") from error
    return FirecrackerFacts(
        ram_bytes=config.mem_size_mib * MIB,
        has_huge_pages=config.huge_pages != "None",
        has_balloon=device is not None,
        offers_reporting=None if device is None else device.free_page_reporting,
        target_bytes=None if device is None else device.amount_mib * MIB,
        actual_bytes=None if told is None else told.actual_mib * MIB,
        available_bytes=None if told is None else told.available_memory,
        statistics_interval_s=0 if device is None else device.stats_polling_interval_s,
    )


def ask_firecracker(path: Path) -> FirecrackerFacts:
    """The same of the API at this socket.

    Raises:
        FirecrackerError: nobody answers in time, or it is no Firecracker's.
    """
    from pagetide.operate.host.unix_http import UnixHttpError, get

    try:
        machine = get(path, "/machine-config")
        if machine is None:
            raise FirecrackerError(f"{path} tells no machine configuration")
        balloon = get(path, "/balloon")
        statistics = None if balloon is None else get(path, "/balloon/statistics")
    except (OSError, UnixHttpError) as error:
        raise FirecrackerError(f"{path} is no API of a Firecracker that can be asked: {error}") from error
    return firecracker_facts(machine, balloon, statistics)
