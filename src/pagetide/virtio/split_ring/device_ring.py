"""The device half of a split virtqueue as an object: its state, and checks of what goes in (virtio 1.2, 2.7)."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.virtio.split_ring.device import (
    AVAIL_ADDRESS,
    AVAIL_SEEN,
    DESC_ADDRESS,
    EVENT_IDX,
    INDIRECT,
    INFLIGHT_ADDRESS,
    INFLIGHT_COUNTER,
    INFLIGHT_DESCS,
    LAST_AVAIL,
    POPPED_HEAD,
    RESUBMITS,
    SIZE,
    STATE_WORDS,
    UNDER_WAY,
    USED_ADDRESS,
    USED_NEXT,
    USED_PUBLISHED,
    arm_kick,
    avail_idx_now,
    disarm_kick,
    pop_element,
    publish_used,
    push_used,
)
from pagetide.virtio.split_ring.inflight import InflightRegion, begin_tracking, end_tracking
from pagetide.virtio.split_ring.ring import (
    INDEX_MASK,
    INDIRECT_DESCS_MAX,
    check_alignment,
    check_queue_size,
    checked,
    used_idx,
)

_Words = npt.NDArray[np.int64]


class Element(NamedTuple):
    """A popped element: its head, and a (guest-physical address, length in bytes, writable) for each descriptor."""

    head: int
    buffers: list[tuple[int, int, bool]]


class DeviceRing:
    """A queue's device half: owns the state that the kernels of device.py work on, and checks what goes in.

    Attributes:
        state: int64 array; the first argument of every kernel there.
        gpas: int64, room for the guest-physical addresses of one element's descriptors.
        lengths: their lengths in bytes.
        flags: which of VIRTQ_DESC_F_WRITE and VIRTQ_DESC_F_INDIRECT each has.
    """

    state: _Words
    gpas: _Words
    lengths: _Words
    flags: _Words

    def __init__(
        self,
        size: int,
        *,
        desc_address: int,
        avail_address: int,
        used_address: int,
        event_idx: bool,
        indirect: bool,
        base: int = 0,
        inflight: InflightRegion | None = None,
    ) -> None:
        """Start at the used index that is in memory: what was made available and not given back is popped.

        Elements between that and `base` were popped by a device before this one and never given back, or never seen by
        any: Cloud Hypervisor starts a queue at the driver's available idx, when Linux has its statistics buffer in it,
        and after its back-end died. With an in-flight region that a device has left in use, what it had popped comes
        before all others. That device may also have died before it called: call the driver once after such a start.

        Args:
            size: of the queue, in descriptors.
            desc_address: the descriptor table; like the other two an address of this process, and the whole part is
                within the guest's memory.
            avail_address: the available ring.
            used_address: the used ring.
            event_idx: whether VIRTIO_F_EVENT_IDX was negotiated.
            indirect: whether VIRTIO_F_INDIRECT_DESC was negotiated.
            base: an available ring entry (`SET_VRING_BASE`), which the used idx must fit: not before it, nor further
                from it than the queue is long.
            inflight: where to keep track of what is popped, so that another device can take over at any time.

        Raises:
            ValueError: a size, address or index is not one that virtio 1.2, 2.7, allows, or the region is another
                queue's.
        """
        check_queue_size(size)
        check_alignment(desc_address, avail_address, used_address)
        given_back = int(used_idx(used_address))
        left = None if inflight is None else begin_tracking(inflight, size, given_back)
        heads, counter = ([], 0) if left is None else left
        first = given_back + len(heads) & INDEX_MASK
        if left is not None:
            base = first
        if not 0 <= base <= INDEX_MASK or (base - given_back & INDEX_MASK) > size:
            raise ValueError(
                f"base {base} does not fit the used idx {given_back} of a queue of {size} (virtio 1.2, 2.7)"
            )
        self.state = np.zeros(STATE_WORDS + len(heads), np.int64)
        self.state[SIZE] = size
        self.state[DESC_ADDRESS] = desc_address
        self.state[AVAIL_ADDRESS] = avail_address
        self.state[USED_ADDRESS] = used_address
        self.state[EVENT_IDX] = event_idx
        self.state[INDIRECT] = indirect
        self.state[LAST_AVAIL] = self.state[AVAIL_SEEN] = first
        self.state[USED_NEXT] = self.state[USED_PUBLISHED] = given_back
        self._inflight = inflight
        if inflight is not None:
            self.state[INFLIGHT_ADDRESS], self.state[INFLIGHT_DESCS] = inflight
            self.state[INFLIGHT_COUNTER] = counter
            self.state[RESUBMITS] = len(heads)
            self.state[STATE_WORDS:] = heads[::-1]
        self.gpas, self.lengths, self.flags = np.zeros((3, max(size, INDIRECT_DESCS_MAX)), np.int64)

    @property
    def last_avail(self) -> int:
        """The available ring entry to pop next, after those that a predecessor took."""
        return int(self.state[LAST_AVAIL])

    @property
    def next_avail(self) -> int:
        """Where another device would go on (`GET_VRING_BASE`), if all that was popped is given back, or is under way.

        What a predecessor took and this one has not popped again is still to be served, and so is the whole element
        under way. Taken in order, they come right before `last_avail`.
        """
        return int(self.state[LAST_AVAIL] - self.state[RESUBMITS] - self.state[UNDER_WAY]) & INDEX_MASK

    @property
    def avail_idx(self) -> int:
        """The driver's available idx, as it is in memory now; unchecked."""
        return int(avail_idx_now(self.state))

    def left_until(self, avail_idx: int) -> int:
        """How many elements there are to pop up to this index, and the one under way."""
        word = self.state.item
        return (avail_idx - word(LAST_AVAIL) & INDEX_MASK) + word(RESUBMITS) + word(UNDER_WAY)

    def stop(self) -> None:
        """Serve the queue no more; what is popped and not given back is for whoever starts it next to pop again."""
        if self._inflight is not None:
            end_tracking(self._inflight)

    def move(self, desc_address: int, avail_address: int, used_address: int) -> None:
        """Go on with the same three parts at other addresses of this process, where they have been mapped anew."""
        state = self.state
        state[DESC_ADDRESS], state[AVAIL_ADDRESS], state[USED_ADDRESS] = desc_address, avail_address, used_address

    def pop(self, regions: _Words) -> Element | None:
        """Take the next available element, or None if there is none.

        Args:
            regions: the guest's region table (`RegionMap.table`).

        Raises:
            RingError: the driver broke a rule; the ring can only be reset.
        """
        count = checked(pop_element(self.state, regions, self.gpas, self.lengths, self.flags))
        if count == 0:
            return None
        columns = (array[:count].tolist() for array in (self.gpas, self.lengths, self.flags))
        return Element(
            int(self.state[POPPED_HEAD]),
            [(gpa, length, bool(flag)) for gpa, length, flag in zip(*columns, strict=True)],
        )

    def push(self, head: int, length_bytes: int) -> None:
        """Give an element back, with the bytes that were written to it.

        Raises:
            RingError: no element is outstanding, or a number is out of range (BAD_PUSH).
        """
        checked(push_used(self.state, head, length_bytes))

    def publish(self) -> bool:
        """Make everything pushed visible to the driver; whether it wants a call."""
        return bool(publish_used(self.state))

    def arm_kick(self) -> bool:
        """Ask for a kick when the next element is published; whether one is already there."""
        return bool(arm_kick(self.state))

    def disarm_kick(self) -> None:
        """Ask for no kicks until `arm_kick`."""
        disarm_kick(self.state)
