"""A guest's state as a successor of this daemon needs it: plain values, without I/O.

What is not in it comes from elsewhere: where a queue stands, from its used ring and the in-flight memory; what is
wanted of the guest, from its wishes; its account, from the words beside this state. Not kept are the times that
reports waited (lag), and which discarded pages are still to be looked for.

A change of what is here that an older or newer daemon cannot read changes VERSION.
"""

import msgspec

from pagetide.virtio.vhost_user.state import BackendState

VERSION = 1
"""Of the layout of everything that is kept."""


class DeviceKept(msgspec.Struct, frozen=True, array_like=True):
    """The device's own, as `BalloonDevice` has it."""

    config: bytes
    poison_known: bool
    poison_told: bool
    can_poison: bool
    cmd_id: int
    next_cmd_id: int
    once_started: list[int]
    left_at: dict[int, int]


class RegionKept(msgspec.Struct, frozen=True, array_like=True):
    """A memory region: a MemoryRegion's fields, and its descriptor."""

    shared: tuple[int, ...]
    fd: int


class SessionKept(msgspec.Struct, frozen=True, array_like=True):
    """A session.

    Attributes:
        backend: what the front-end told.
        device: what the driver told.
        memory: the regions.
        inflight: an Inflight's fields; empty if the front-end gave no such memory.
        inflight_fd: its descriptor.
        untold: whether a change of the configuration was about to be told.
    """

    backend: BackendState
    device: DeviceKept
    memory: list[RegionKept]
    inflight: tuple[int, ...]
    inflight_fd: int
    untold: bool


class GuestKept(msgspec.Struct, frozen=True, array_like=True):
    """All of a guest at one moment between two messages.

    Attributes:
        name: what it is called.
        socket: the path at which it connected; None if it came otherwise.
        session: the rest.
        taken_bytes: how much of the connection this state has dealt with and may not have taken from it yet.
        part: of a message that was not all there.
        part_fds: its descriptors.
        replies_end: up to where replies are to be sent.
        reply_fd: a descriptor that goes with the last of them.
    """

    name: str
    socket: str | None
    session: SessionKept
    taken_bytes: int = 0
    part: bytes = b""
    part_fds: list[int] = []
    replies_end: int = 0
    reply_fd: int = -1

    @property
    def fds(self) -> set[int]:
        """Every descriptor that it names."""
        backend = self.session.backend
        named = {backend.channel, self.session.inflight_fd, self.reply_fd, *self.part_fds}
        named.update(region.fd for region in self.session.memory)
        for vring in backend.vrings:
            named |= {vring.kick, vring.call, vring.err}
        return named - {-1}


class UnreadableStateError(Exception):
    """A state was kept that this version cannot read; the message says why."""


def encode_kept(state: GuestKept) -> bytes:
    """As it is kept."""
    return msgspec.msgpack.encode(state)


def decode_kept(data: bytes) -> GuestKept:
    """From what was kept.

    Raises:
        UnreadableStateError: it is none.
    """
    try:
        return msgspec.msgpack.decode(data, type=GuestKept)
    except msgspec.MsgspecError as error:
        raise UnreadableStateError(f"what was kept of a guest makes no sense: {error}") from error
