"""The guest's text without the guest's script: made of files that somebody can read there one by one.

No folder can be listed so. What is in numbered or sized folders is asked for by the names that they usually have.
"""

from collections.abc import Callable, Iterator

_WHOLE = {
    "release": "/proc/sys/kernel/osrelease",
    "meminfo": "/proc/meminfo",
    "vmstat": "/proc/vmstat",
    "buddyinfo": "/proc/buddyinfo",
    "zoneinfo": "/proc/zoneinfo",
    "pagetypeinfo": "/proc/pagetypeinfo",
}
_PARAMETERS = (
    "mem=", "hugepages=", "hugepagesz=", "default_hugepagesz=", "transparent_hugepage=", "page_reporting.",
    "page_poison=", "init_on_free=", "init_on_alloc=", "crashkernel=", "memhp_default_state=",
)  # fmt: skip
_NAMED = {
    "reporting": ("/sys/module/page_reporting/parameters/page_reporting_order",),
    "sysctl": ("/proc/sys/vm/percpu_pagelist_high_fraction", "/proc/sys/vm/min_free_kbytes"),
}
_POOLS_KIB = (64, 2048, 32768, 1 << 20)
_VIRTIO_MAX = 24
_BALLOON = b"0x0005"

Read = Callable[[str], bytes | None]
"""What is in a file; None if it cannot be read."""


def text_of_files(read: Read) -> bytes:
    """The same as the script writes, as far as these files have it; the rest is marked as not read."""
    return b"\n".join((b"@pagetide guest 1", *_parts(read), b"@pagetide end", b""))


def _parts(read: Read) -> Iterator[bytes]:
    for name, path in _WHOLE.items():
        data = read(path)
        yield f"@pagetide {name}{' unreadable' if data is None else ''}".encode()
        if data is not None:
            yield data.rstrip(b"\n")
    yield b"@pagetide parameters"
    words = (read("/proc/cmdline") or b"").split()
    yield from (word for word in words if word.decode(errors="replace").startswith(_PARAMETERS))
    for part, paths in _NAMED.items():
        yield f"@pagetide {part}".encode()
        for path in paths:
            if (value := _value(read, path)) is not None:
                yield f"{path.rpartition('/')[2]} ".encode() + value
    yield b"@pagetide hugepages"
    yield from _pools(read)
    yield b"@pagetide balloons"
    yield from _balloons(read)


def _value(read: Read, path: str) -> bytes | None:
    data = read(path)
    return None if data is None else data.strip()


def _pools(read: Read) -> Iterator[bytes]:
    for size_kib in _POOLS_KIB:
        folder = f"/sys/kernel/mm/hugepages/hugepages-{size_kib}kB"
        pages, free = _value(read, f"{folder}/nr_hugepages"), _value(read, f"{folder}/free_hugepages")
        if pages is not None and free is not None:
            yield b"%d %s %s" % (size_kib, pages, free)


def _balloons(read: Read) -> Iterator[bytes]:
    """Features are zeros until a driver has accepted some, and none accepts nothing (VERSION_1)."""
    for number in range(_VIRTIO_MAX):
        folder = f"/sys/bus/virtio/devices/virtio{number}"
        if _value(read, f"{folder}/device") == _BALLOON:
            features = _value(read, f"{folder}/features") or b"-"
            yield (b"driver " if b"1" in features else b"none ") + features
