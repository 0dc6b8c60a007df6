"""A front-end for tests: what VhostUserLink does, and each step of it on its own, right or wrong."""

import socket

from pagetide.guest.vhost_user_link import VhostUserLink
from pagetide.memory.guest_ram import GuestRam
from pagetide.virtio.balloon import Status
from pagetide.virtio.vhost_user_frontend import RefusedError
from pagetide.virtio.vhost_user_messages import F_PROTOCOL_FEATURES, ProtocolFeature, Request
from pagetide.virtio.vhost_user_payloads import U64, decode_u64
from pagetide.virtio.vhost_user_transport import PeerGoneError


class VhostUserProbe(VhostUserLink):
    """A driver's way to a back-end, which the driver may use badly."""

    def __init__(self, sock: socket.socket, ram: GuestRam, *, timeout_s: float = 60.0) -> None:
        """Take over the socket; the longest wait for each reply."""
        super().__init__(sock, ram, timeout_s=timeout_s)
        self._told: socket.socket | None = None

    def close(self) -> None:
        """Close the connection, and the channel for the back-end's requests."""
        if self._told is not None:
            self._told.close()
        super().close()

    @property
    def offered(self) -> int:
        """The features that the back-end offers, without vhost-user's own bit."""
        return decode_u64(self._channel.call(Request.GET_FEATURES)) & ~F_PROTOCOL_FEATURES

    def negotiate(self, wanted: int) -> int:
        """As VhostUserLink, with a channel on which the back-end tells of a changed configuration."""
        features = super().negotiate(wanted)
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
            return bool(self.status & Status.FEATURES_OK)
        except (PeerGoneError, RefusedError):
            return False

    def set_status(self, status: int) -> None:
        """Write the device status, where the back-end has one."""
        self._channel.set_status(status)

    def reset(self) -> None:
        """Reset the device, by its status."""
        self._channel.set_status(0)

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
            return False
        try:
            return bool(self._told.recv(4096, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False
