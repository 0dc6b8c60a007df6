"""The memory in which a guest's queues keep track of what is in flight: made here, kept by the front-end.

A front-end asks for it once, gives it back to whichever back-end it is connected to, and so carries it from one that
died to its successor (QEMU's docs/interop/vhost-user.rst, "Inflight I/O tracking"). After the queues' regions there is
room for what the device was told (`state.py`); memory that another back-end made may have none.
"""

import ctypes
import os

from pagetide import foreign_fds, linux
from pagetide.host.device.state import STATE_BYTES, DeviceState
from pagetide.host.memory.file_window import FileWindow
from pagetide.host.memory.mapping import GuestMemoryError
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.split_ring.inflight import InflightRegion, region_bytes
from pagetide.virtio.split_ring.ring import QUEUE_SIZE_MAX
from pagetide.virtio.vhost_user.payloads import Inflight


def create_inflight(queue_count: int, queue_size: int, queues_max: int) -> tuple[Inflight, int]:
    """Make memory for so many queues of so many descriptors: its description, and its descriptor, the caller's.

    Raises:
        GuestMemoryError: nobody has such queues, or there is no memory.
    """
    size_bytes = _size_bytes(queue_count, queue_size, queues_max) + STATE_BYTES
    try:
        fd = linux.sealed_memfd("pagetide-inflight", size_bytes)
    except OSError as error:
        raise GuestMemoryError(f"no memory for what is in flight: {error}") from error
    return Inflight(size_bytes, 0, queue_count, queue_size), fd


class InflightMemory:
    """Such memory, mapped."""

    def __init__(self, inflight: Inflight, fd: int, queues_max: int) -> None:
        """Map it. The descriptor is this object's from now on, in any case.

        Raises:
            GuestMemoryError: the description is not one of ours, or does not fit the file, or it cannot be mapped.
        """
        self._inflight = inflight
        try:
            needed_bytes = _size_bytes(inflight.queue_count, inflight.queue_size, queues_max)
            if inflight.mmap_size_bytes < needed_bytes or inflight.mmap_offset_bytes % PAGE_SIZE_BYTES:
                raise GuestMemoryError(f"the in-flight memory is not of this device: {inflight}")
            if inflight.mmap_offset_bytes + inflight.mmap_size_bytes > os.fstat(fd).st_size:
                raise GuestMemoryError("the in-flight memory reaches beyond the end of its file")
            self._state_at = needed_bytes if inflight.mmap_size_bytes >= needed_bytes + STATE_BYTES else -1
            used_bytes = needed_bytes + (STATE_BYTES if self._state_at >= 0 else 0)
            self._window = FileWindow(fd, inflight.mmap_offset_bytes, used_bytes)
        except OSError as error:
            raise GuestMemoryError(f"the in-flight memory cannot be mapped: {error}") from error
        finally:
            foreign_fds.close(fd)

    @property
    def was_cut(self) -> bool:
        """Whether a part of it was found to have no page, as `FileWindow`."""
        return self._window.was_cut

    def region(self, queue: int) -> InflightRegion | None:
        """A queue's region, if the memory has one for it."""
        if queue >= self._inflight.queue_count:
            return None
        descs = self._inflight.queue_size
        return InflightRegion(self._window.address + queue * region_bytes(descs), descs)

    @property
    def state(self) -> DeviceState | None:
        """What the device was told that used it last; None if nothing is known."""
        if self._state_at < 0:
            return None
        return DeviceState.decode(ctypes.string_at(self._window.address + self._state_at, STATE_BYTES))

    def keep_state(self, state: DeviceState) -> None:
        """Keep it for a successor, if there is room."""
        if self._state_at >= 0:
            ctypes.memmove(self._window.address + self._state_at, state.encode(), STATE_BYTES)

    def close(self) -> None:
        """Unmap it; no queue may use it any more."""
        self._window.close()


class InflightTracking:
    """The in-flight memory of one connection: what was made for it, and what its queues use."""

    def __init__(self, queues_max: int) -> None:
        """Have none yet.

        Args:
            queues_max: how many queues there can be.
        """
        self._queues_max = queues_max
        self._used: InflightMemory | None = None
        self._made_fd = -1

    @property
    def is_used(self) -> bool:
        """Whether the front-end has given memory."""
        return self._used is not None

    @property
    def was_cut(self) -> bool:
        """Whether the file in use was found to be shorter than it was."""
        return self._used is not None and self._used.was_cut

    def region(self, queue: int) -> InflightRegion | None:
        """Where a queue that starts now is to keep track, if the front-end has given memory for it."""
        return None if self._used is None else self._used.region(queue)

    def make(self, queue_count: int, queue_size: int) -> tuple[Inflight, int]:
        """Make memory for the front-end to keep, as `create_inflight`; the descriptor is closed by the next `make`.

        It is open until the reply with it has gone: no message is taken before that, so not a second one of these.

        Raises:
            GuestMemoryError: nobody has such queues, or there is no memory.
        """
        inflight, fd = create_inflight(queue_count, queue_size, self._queues_max)
        self._close_made()
        self._made_fd = fd
        return inflight, fd

    def use(self, inflight: Inflight, fd: int) -> None:
        """Track there from now on, in queues started after this. The descriptor is this object's, in any case.

        Raises:
            GuestMemoryError: as `InflightMemory`; what was used before is used still.
        """
        given = InflightMemory(inflight, fd, self._queues_max)
        if self._used is not None:
            self._used.close()
        self._used = given

    @property
    def state(self) -> DeviceState | None:
        """What the device was told that used this memory last, as `InflightMemory`."""
        return None if self._used is None else self._used.state

    def keep_state(self, state: DeviceState) -> None:
        """Keep what the device was told, if the front-end has given memory for it."""
        if self._used is not None:
            self._used.keep_state(state)

    def close(self) -> None:
        """Unmap and close everything; no queue may use it any more."""
        if self._used is not None:
            self._used.close()
        self._close_made()

    def _close_made(self) -> None:
        if self._made_fd >= 0:
            os.close(self._made_fd)
            self._made_fd = -1


def _size_bytes(queue_count: int, queue_size: int, queues_max: int) -> int:
    if not 1 <= queue_count <= queues_max or not 1 <= queue_size <= QUEUE_SIZE_MAX:
        raise GuestMemoryError(f"in-flight memory for {queue_count} queues of {queue_size}: no balloon has such queues")
    return queue_count * region_bytes(queue_size)
