"""What a front-end's messages mean for a device: the events of a vhost-user back-end."""

from typing import NamedTuple

from pagetide.virtio.vhost_user.payloads import ConfigSpace, Inflight, MemoryRegion, VringAddress


class SessionBegun(NamedTuple):
    """A front-end owns the device anew on an open connection: nothing of the session before is left.

    Its queues are stopped, its memory is to be forgotten, and the account begins at zero. Who owned it before has gone
    without a word: QEMU's device_del and device_add on the same character device do this.
    """

    stopped: tuple[int, ...]


class FeaturesSet(NamedTuple):
    """The driver's features are known, maybe not for the first time."""

    features: int


class MemoryTableSet(NamedTuple):
    """The guest's memory is these regions now; one descriptor each, which the caller owns."""

    regions: tuple[MemoryRegion, ...]
    fds: tuple[int, ...]


class MemoryRegionAdded(NamedTuple):
    """One more region; the caller owns its descriptor."""

    region: MemoryRegion
    fd: int


class MemoryRegionRemoved(NamedTuple):
    """The region with this gpa, size and user address is gone."""

    region: MemoryRegion


class InflightAsked(NamedTuple):
    """Memory for what is in flight is to be made, for so many queues of so many descriptors; tell `inflight_made`."""

    queue_count: int
    queue_size: int


class InflightGiven(NamedTuple):
    """What is in flight is to be tracked there, in queues started from now on; the caller owns the descriptor."""

    inflight: Inflight
    fd: int


class QueueStarted(NamedTuple):
    """A queue is to be served, from the available index on that `vrings.base` gives."""

    queue: int
    size: int
    address: VringAddress
    kick_fd: int


class QueueStopped(NamedTuple):
    """A queue is to be left alone; tell `vrings.stopped_at` where it stood, before anything else."""

    queue: int


class CallReplaced(NamedTuple):
    """A started queue has a new call descriptor: call once, for a call on the one before may have been lost.

    A front-end that has found a successor of its back-end may start a queue first and give the descriptor then.
    """

    queue: int


class ConfigWritten(NamedTuple):
    """The driver wrote to the configuration space."""

    config: ConfigSpace


class DeviceReset(NamedTuple):
    """The device is as if new: every queue is stopped."""

    stopped: tuple[int, ...]


Event = (
    SessionBegun
    | FeaturesSet
    | MemoryTableSet
    | MemoryRegionAdded
    | MemoryRegionRemoved
    | InflightAsked
    | InflightGiven
    | QueueStarted
    | QueueStopped
    | CallReplaced
    | ConfigWritten
    | DeviceReset
)
