"""The back-end's side of vhost-user, as a state machine without I/O (QEMU's docs/interop/vhost-user.rst, "the text").

Each message is handled in three steps: `take` checks it and answers what it means for the device, the caller acts on
that, and `answer` gives the reply, which depends on how that went.

What becomes of queues is in vrings.py, what makes a request legal in rules.py, and what the payload of one says in
requests.py, if that takes no more. Beyond that:

- SET_INFLIGHT_FD counts for queues that are started after it, and comes while none is started.
- SET_FEATURES may come more than once; RESET_OWNER and RESET_DEVICE stop every queue.
- SET_OWNER is for a new connection. A second one begins a new session: QEMU sends the whole sequence again on an open
  connection when its device is removed and added again (device_del, device_add), with ADD_MEM_REG for memory that it
  never removed. What came before SET_OWNER in the new sequence, protocol features and the channel, counts.
- A front-end expects to be told of a changed configuration while it has a queue started and, where it passes on the
  driver's status, the driver is ready. QEMU 11's generic device passes on FEATURES_OK and nothing else, so only a
  status with DRIVER says that it does; told while it has none started, it ends.
- The configuration space reads as zeros beyond its end, and what is written there is dropped: a driver chooses the
  place, and Cloud Hypervisor passes it on and ends if that fails.

Descriptors of queues belong to the state machine. Those that it no longer needs are for the caller to close, from
`take_unneeded_fds`. Those in events about memory belong to the caller at once.
"""

from collections.abc import Callable

from pagetide.virtio.balloon import Status
from pagetide.virtio.vhost_user.events import (
    ConfigWritten,
    DeviceReset,
    Event,
    FeaturesSet,
    InflightGiven,
    MemoryRegionRemoved,
    QueueStarted,
    SessionBegun,
)
from pagetide.virtio.vhost_user.messages import (
    F_PROTOCOL_FEATURES,
    FLAG_REPLY,
    BackendRequest,
    Message,
    ProtocolFeature,
    RemoteProtocolError,
    Request,
)
from pagetide.virtio.vhost_user.payloads import (
    CONFIG_BYTES_MAX,
    U64,
    VRING_STATE,
    Inflight,
    decode_config,
    decode_inflight,
    decode_single_region,
    decode_u64,
    decode_vring_state,
    encode_config,
    encode_inflight,
)
from pagetide.virtio.vhost_user.requests import STATELESS, VRING_REQUESTS
from pagetide.virtio.vhost_user.rules import (
    MEM_SLOTS_MAX,
    PROTOCOL_FEATURES,
    REQUESTS_WITH_REPLY,
    check_request,
)
from pagetide.virtio.vhost_user.state import BackendState
from pagetide.virtio.vhost_user.vrings import Vrings

_NO_INFLIGHT = Inflight(0, 0, 0, 0)
_OF_THE_DRIVER, _NOT_READY = int(Status.DRIVER | Status.DRIVER_OK), int(Status.DRIVER)


class VhostUserBackend:
    """One connection's state.

    Attributes:
        features: what the driver accepted.
        protocol_features: what the front-end accepted.
        status: the device status that the front-end set (STATUS).
        config: the configuration space's bytes; the caller changes them.
        vrings: what is known of the queues; the caller tells it where one stopped.
    """

    features: int
    protocol_features: ProtocolFeature
    status: int
    config: bytearray
    vrings: Vrings

    def __init__(self, device_features: int, queue_count: int, config: bytearray) -> None:
        """Start as a front-end finds it.

        Args:
            device_features: what the device offers; the bit for protocol features is added.
            queue_count: how many queues there can be.
            config: the configuration space, which stays the caller's to change.
        """
        assert len(config) <= CONFIG_BYTES_MAX
        self.features = self.status = 0
        self.protocol_features = ProtocolFeature(0)
        self.config = config
        self._offered = device_features | F_PROTOCOL_FEATURES
        self._channel_fd = -1
        self._is_owned = False
        self._unneeded_fds: list[int] = []
        self.vrings = Vrings(queue_count, self._unneeded_fds.append)
        self._inflight, self._inflight_fd = _NO_INFLIGHT, -1
        self._handlers: dict[Request, Callable[[Message], tuple[Event, ...]]] = {
            Request.SET_FEATURES: self._set_features,
            Request.SET_OWNER: self._set_owner,
            Request.RESET_OWNER: self._reset,
            Request.SET_PROTOCOL_FEATURES: self._set_protocol_features,
            Request.SET_BACKEND_REQ_FD: self._set_backend_req_fd,
            Request.SET_CONFIG: self._set_config,
            Request.SET_INFLIGHT_FD: self._set_inflight_fd,
            Request.RESET_DEVICE: self._reset,
            Request.REM_MEM_REG: self._rem_mem_reg,
            Request.SET_STATUS: self._set_status,
        }

    def take(self, message: Message) -> tuple[Event, ...]:
        """Check a message and say what it means: nothing for the device, or one or two things in order.

        Raises:
            RemoteProtocolError: the front-end broke a rule of the text; its descriptors are among the unneeded.
        """
        try:
            request = check_request(message, self.protocol_features)
            if request in VRING_REQUESTS:
                return VRING_REQUESTS[request](self.vrings, message)
            return self._handlers[request](message) if request in self._handlers else STATELESS[request](message)
        except RemoteProtocolError:
            self._unneeded_fds += message.fds
            raise

    def answer(self, message: Message, *, succeeded: bool = True) -> Message | None:
        """The reply to a message that was taken and acted on; None if none is due.

        A request that has no reply of its own is acknowledged with 0, or 1 for a failure, if the front-end wants
        that and REPLY_ACK was negotiated (the text, "VHOST_USER_PROTOCOL_F_REPLY_ACK").
        """
        if message.request == Request.GET_INFLIGHT_FD:
            made = (self._inflight_fd,) if succeeded else ()
            return Message(message.request, FLAG_REPLY, encode_inflight(self._inflight if made else _NO_INFLIGHT), made)
        if message.request in REQUESTS_WITH_REPLY:
            return Message(message.request, FLAG_REPLY, self._reply(message))
        if message.need_reply and self.protocol_features & ProtocolFeature.REPLY_ACK:
            return Message(message.request, FLAG_REPLY, U64.pack(0 if succeeded else 1))
        return None

    def inflight_made(self, inflight: Inflight, fd: int) -> None:
        """The memory that an event asked for; the descriptor stays the caller's, and open until the reply is sent."""
        self._inflight, self._inflight_fd = inflight, fd

    @property
    def has_channel(self) -> bool:
        """Whether the front-end has given a channel for our requests (SET_BACKEND_REQ_FD)."""
        return self._channel_fd >= 0

    @property
    def driver_is_there(self) -> bool:
        """Whether a queue is started, and the driver ready as far as the front-end passes that on."""
        bits = int(self.status) & _OF_THE_DRIVER  # as numbers, since the bits of an enumeration take ten times as long
        return bits != _NOT_READY and self.vrings.any_is_started

    def config_changed(self) -> tuple[int, Message] | None:
        """The message that tells of a changed configuration, and the descriptor of the channel that it goes to.

        None without such a channel, or while the front-end need not expect it: keep it until it does (the text,
        "VHOST_USER_BACKEND_CONFIG_CHANGE_MSG").
        """
        if not self.has_channel or not self.driver_is_there:
            return None
        return self._channel_fd, Message(BackendRequest.CONFIG_CHANGE_MSG)

    def state(self, number_of: Callable[[int], int]) -> BackendState:
        """All of it, for a successor; `number_of` says what a descriptor is called there."""
        return BackendState(
            self._offered,
            self.features,
            int(self.protocol_features),
            self.status,
            number_of(self._channel_fd),
            self._is_owned,
            self.vrings.state(number_of),
        )

    def restore(self, state: BackendState, fd_of: Callable[[int], int]) -> tuple[QueueStarted, ...]:
        """Know what a predecessor knew, and offer what it offered; the queues that are to be served again."""
        self._offered, self.features, self.status = state.offered, state.features, state.status
        self.protocol_features = ProtocolFeature(state.protocol_features)
        self._channel_fd = fd_of(state.channel)
        self._is_owned = state.is_owned
        return self.vrings.restore(state.vrings, fd_of)

    def drop_channel(self) -> None:
        """The front-end's end of the channel is closed; it may give another one."""
        if self._channel_fd >= 0:
            self._unneeded_fds.append(self._channel_fd)
            self._channel_fd = -1

    def take_unneeded_fds(self) -> list[int]:
        """Descriptors for the caller to close, once it has acted on the event."""
        fds = self._unneeded_fds[:]
        self._unneeded_fds.clear()  # the queues add to it
        return fds

    def close(self) -> list[int]:
        """The connection is over: every descriptor that is left, for the caller to close."""
        self.vrings.close()
        self.drop_channel()
        return self.take_unneeded_fds()

    def _reply(self, message: Message) -> bytes:
        if message.request == Request.GET_VRING_BASE:
            index, _ = decode_vring_state(message.payload)
            return VRING_STATE.pack(index, self.vrings.base(index))
        if message.request == Request.GET_CONFIG:
            asked = decode_config(message.payload)
            data = bytes(self.config[asked.offset : asked.offset + asked.size])
            # A reply must be as long as the request (the text, "VHOST_USER_GET_CONFIG").
            return encode_config(asked._replace(data=data.ljust(asked.size, b"\0")))
        return U64.pack(
            {
                Request.GET_FEATURES: self._offered,
                Request.GET_PROTOCOL_FEATURES: int(PROTOCOL_FEATURES),
                Request.GET_QUEUE_NUM: len(self.vrings),
                Request.GET_MAX_MEM_SLOTS: MEM_SLOTS_MAX,
                Request.GET_STATUS: self.status,
            }[Request(message.request)]
        )

    def _set_owner(self, _: Message) -> tuple[Event, ...]:
        if not self._is_owned:
            self._is_owned = True
            return ()
        stopped = self.vrings.reset(forget=True)
        self.vrings.close()
        self.features = self.status = 0
        return (SessionBegun(stopped),)

    def _set_features(self, message: Message) -> tuple[Event, ...]:
        features = decode_u64(message.payload)
        if features & ~self._offered:
            raise RemoteProtocolError(f"SET_FEATURES accepts {features & ~self._offered:#x}, which was not offered")
        self.features = features
        return (FeaturesSet(features),)

    def _set_protocol_features(self, message: Message) -> tuple[Event, ...]:
        features = decode_u64(message.payload)
        refused = features & ~int(PROTOCOL_FEATURES)
        if refused:
            raise RemoteProtocolError(f"SET_PROTOCOL_FEATURES accepts {refused:#x}, which was not offered")
        self.protocol_features = ProtocolFeature(features)
        if not self.protocol_features & ProtocolFeature.BACKEND_REQ:
            self.drop_channel()
        return ()

    def _rem_mem_reg(self, message: Message) -> tuple[Event, ...]:
        region = decode_single_region(message.payload)
        # A descriptor may come along, from front-ends that once did so wrongly (the text, "VHOST_USER_REM_MEM_REG").
        # It is given up only now: `take` gives up those of a message that is refused, and none may be twice.
        self._unneeded_fds += message.fds
        return (MemoryRegionRemoved(region),)

    def _set_backend_req_fd(self, message: Message) -> tuple[Event, ...]:
        if len(message.fds) != 1:
            raise RemoteProtocolError("SET_BACKEND_REQ_FD without its file descriptor")
        self.drop_channel()
        self._channel_fd = message.fds[0]
        return ()

    def _set_inflight_fd(self, message: Message) -> tuple[Event, ...]:
        inflight = decode_inflight(message.payload)
        if len(message.fds) != 1:
            raise RemoteProtocolError("SET_INFLIGHT_FD without its file descriptor")
        if self.vrings.started:
            raise RemoteProtocolError(f"SET_INFLIGHT_FD while queue {self.vrings.started[0]} is started")
        return (InflightGiven(inflight, message.fds[0]),)

    def _set_config(self, message: Message) -> tuple[Event, ...]:
        config = decode_config(message.payload)
        data = config.data[: max(0, len(self.config) - config.offset)]
        return (ConfigWritten(config._replace(size=len(data), data=data)),) if data else ()

    def _set_status(self, message: Message) -> tuple[Event, ...]:
        status = decode_u64(message.payload) & 0xFF
        if status == 0:
            return self._reset(message)
        # No bit is cleared but by a reset (virtio 1.2, 2.1.1), least of all one that the front-end may not know of yet.
        self.status = status | self.status & Status.NEEDS_RESET
        return ()

    def _reset(self, message: Message) -> tuple[Event, ...]:
        """Stop every queue; all but RESET_OWNER also forget what queues were told (the text, at both messages)."""
        forget = message.request != Request.RESET_OWNER
        stopped = self.vrings.reset(forget=forget)
        if forget:
            self.status = 0
        return (DeviceReset(stopped),)
