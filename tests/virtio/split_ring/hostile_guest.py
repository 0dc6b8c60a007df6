"""A guest of two pages whose virtqueue the tests write by hand, well or badly."""

import ctypes
import struct
from typing import Any

from pagetide.memory.region_map import Region, RegionMap
from pagetide.virtio.split_ring.device_ring import DeviceRing

PAGE = 4096
SIZE = 8
GPA = 0x40000
HIGH_GPA = GPA + PAGE
END_GPA = GPA + 2 * PAGE
DESC_GPA, AVAIL_GPA, USED_GPA, TABLE_GPA = GPA, GPA + 0x100, GPA + 0x200, GPA + 0x800
_GUARD_BYTES = 1 << 21  # beyond what any 16-bit index of a descriptor reaches
_MAPPED_BYTES = 2 * PAGE + 2 * _GUARD_BYTES
_PROT_NONE, _PROT_READ_WRITE = 0, 3
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

Descriptor = tuple[int, int, int, int]


class Guest:
    """Two pages of memory in two regions, with unreadable memory around them: a load outside kills the test."""

    def __init__(self) -> None:
        private_anonymous, no_fd = 0x22, -1
        self._start = _libc.mmap(None, _MAPPED_BYTES, _PROT_NONE, private_anonymous, no_fd, 0)
        address = self._start + _GUARD_BYTES
        assert _libc.mprotect(address, 2 * PAGE, _PROT_READ_WRITE) == 0
        self.memory = (ctypes.c_uint8 * (2 * PAGE)).from_address(address)
        low, high = (Region(GPA + i * PAGE, PAGE, -1, 0, address + i * PAGE) for i in (0, 1))
        self.regions = RegionMap([low, high]).table
        self.address = address

    def __enter__(self) -> "Guest":
        return self

    def __exit__(self, *_: object) -> None:
        _libc.munmap(self._start, _MAPPED_BYTES)

    def device(self, *, indirect: bool) -> DeviceRing:
        """A device half on this guest's queue."""
        desc, avail, used = (self.address + gpa - GPA for gpa in (DESC_GPA, AVAIL_GPA, USED_GPA))
        return DeviceRing(
            SIZE, desc_address=desc, avail_address=avail, used_address=used, event_idx=False, indirect=indirect
        )

    def read(self, form: str, gpa: int) -> tuple[Any, ...]:
        """Little-endian fields at an address of the guest."""
        return struct.unpack_from("<" + form, self.memory, gpa - GPA)

    def write(self, form: str, gpa: int, *values: int) -> None:
        """Write little-endian fields at an address of the guest."""
        struct.pack_into("<" + form, self.memory, gpa - GPA, *values)

    def write_table(self, gpa: int, descs: list[Descriptor]) -> None:
        """Write (addr, len, flags, next) one after the other."""
        for i, desc in enumerate(descs):
            self.write("QIHH", gpa + 16 * i, *desc)
