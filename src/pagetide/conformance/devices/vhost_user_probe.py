"""A front-end for tests: what VhostUserLink does, and each step of it on its own, right or wrong.

A back-end need not have every protocol feature. What cannot be done or seen without one raises NotTestableError.
"""

import os
import select
import socket

from pagetide.conformance.devices.device_under_test import NotTestableError
from pagetide.guest.driver.link import VhostUserLink
from pagetide.linux import eventfd
from pagetide.memory.guest_ram import GuestRam
from pagetide.virtio.balloon import Status
from pagetide.virtio.vhost_user.frontend import RefusedError
from pagetide.virtio.vhost_user.messages import F_PROTOCOL_FEATURES, ProtocolFeature, Request
from pagetide.virtio.vhost_user.payloads import U64, decode_u64
from pagetide.virtio.vhost_user.transport import FrontendChannel, PeerGoneError


class _StepByStep(FrontendChannel):
    """A front-end that has every message dealt with before it sends a descriptor.

    Whoever passes messages on, as a proxy, may read some at once, and send the descriptor with the first of them.
    """

    def call(self, request: Request, payload: bytes = b"", fds: tuple[int, ...] = ()) -> bytes:
        """As ever; without acknowledgements a reply to something else is waited for first."""
        if fds and not self.frontend.protocol_features & ProtocolFeature.REPLY_ACK:
            super().call(Request.GET_FEATURES)
        return super().call(request, payload, fds)


class VhostUserProbe(VhostUserLink):
    """A driver's way to a back-end, which the driver may use badly."""

    _channel_type = _StepByStep

    def __init__(self, sock: socket.socket, ram: GuestRam, *, timeout_s: float = 60.0) -> None:
        """Take over the socket; the longest wait for each reply."""
        super().__init__(sock, ram, timeout_s=timeout_s)
        self._told: socket.socket | None = None
        self._err_fd = eventfd()
        self._negotiated = False

    def close(self) -> None:
        """Close the connection, and the channel for the back-end's requests."""
        if self._told is not None:
            self._told.close()
        super().close()
        os.close(self._err_fd)

    def has(self, feature: ProtocolFeature) -> bool:
        """Whether this protocol feature was negotiated."""
        return bool(self._channel.frontend.protocol_features & feature)

    @property
    def err_fd(self) -> int:
        """Readable once the back-end has told of an error."""
        return self._err_fd

    @property
    def told_of_error(self) -> bool:
        """Whether the back-end has signalled an error of a queue (SET_VRING_ERR)."""
        return bool(select.select([self._err_fd], [], [], 0)[0])

    @property
    def status(self) -> int:
        """The device status."""
        if self._negotiated and not self.has(ProtocolFeature.STATUS):
            raise NotTestableError("the back-end has no device status (protocol feature STATUS)")
        return super().status

    @property
    def queue_count(self) -> int | None:
        """How many queues the back-end says that it has."""
        return decode_u64(self._channel.call(Request.GET_QUEUE_NUM)) if self.has(ProtocolFeature.MQ) else None

    def start_queue(self, index: int, size: int, desc_gpa: int, avail_gpa: int, used_gpa: int) -> None:
        """As VhostUserLink, with a descriptor by which the back-end can tell of an error; it is started afterwards."""
        self._channel.call(Request.SET_VRING_ERR, U64.pack(index), (self._err_fd,))
        super().start_queue(index, size, desc_gpa, avail_gpa, used_gpa)
        self._settle()

    @property
    def offered(self) -> int:
        """The features that the back-end offers, without vhost-user's own bit."""
        return decode_u64(self._channel.call(Request.GET_FEATURES)) & ~F_PROTOCOL_FEATURES

    def negotiate(self, wanted: int) -> int:
        """As VhostUserLink, with a channel on which the back-end tells of a changed configuration."""
        features = super().negotiate(wanted)
        self._negotiated = True
        if self._channel.frontend.protocol_features & ProtocolFeature.BACKEND_REQ:
            if self._told is not None:
                self._told.close()
            self._told, theirs = socket.socketpair()
            with theirs:
                self._channel.call(Request.SET_BACKEND_REQ_FD, b"", (theirs.fileno(),))
        return features

    def accept(self, features: int) -> bool:
        """Accept just these features, offered or not; whether the back-end goes along."""
        self.negotiate(features)
        try:
            self._channel.call(Request.SET_FEATURES, U64.pack(features | F_PROTOCOL_FEATURES))
            unknown = features & ~self.offered  # asked, so that it has been dealt with
            if self.has(ProtocolFeature.STATUS):
                return bool(self.status & Status.FEATURES_OK)
        except (PeerGoneError, RefusedError):
            return False
        if unknown and not self.has(ProtocolFeature.REPLY_ACK):
            raise NotTestableError("the back-end has neither STATUS nor REPLY_ACK to say no with")
        return True

    def set_status(self, status: int) -> None:
        """Write the device status, where the back-end has one."""
        self._channel.set_status(status)
        self._settle()

    def reset(self) -> None:
        """Reset the device: by its status, or by RESET_DEVICE; it is reset afterwards."""
        if self.has(ProtocolFeature.STATUS):
            self._channel.set_status(0)
        elif self.has(ProtocolFeature.RESET_DEVICE):
            self._channel.call(Request.RESET_DEVICE)
        else:
            raise NotTestableError("the back-end cannot be reset (neither STATUS nor RESET_DEVICE)")
        self._settle()

    def queue_size_max(self, index: int) -> int | None:
        """vhost-user has no word for it."""
        return None

    def kick_and_reset(self, index: int) -> None:
        """Notify the device, and reset it at once."""
        self.kick(index)
        self.reset()

    def take_config_notification(self) -> bool:
        """Whether the back-end has told of a changed configuration since this was asked."""
        if self._told is None:
            raise NotTestableError("the back-end has no way to tell (protocol feature BACKEND_REQ)")
        try:
            return bool(self._told.recv(4096, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def _settle(self) -> None:
        """Have the back-end answer something: messages come in order, so what went before is done."""
        if not self._channel.frontend.protocol_features & ProtocolFeature.REPLY_ACK:
            self._channel.call(Request.GET_FEATURES)
