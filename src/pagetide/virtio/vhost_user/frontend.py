"""The front-end's side of vhost-user, as a state machine without I/O (QEMU's docs/interop/vhost-user.rst, "the text").

The rules:

- Replies come in the order of the requests that they answer, and with those requests' numbers.
- Once REPLY_ACK is negotiated every request without a reply of its own asks for an acknowledgement, so that a back-end
  that could not do what it was told is noticed at the message that it refused.
- Nothing but a reply comes on this connection; the back-end's own requests have a channel of their own.
"""

from collections import deque

from pagetide.virtio.vhost_user.messages import (
    FLAG_NEED_REPLY,
    LocalProtocolError,
    Message,
    ProtocolFeature,
    RemoteProtocolError,
    Request,
)
from pagetide.virtio.vhost_user.payloads import decode_u64
from pagetide.virtio.vhost_user.rules import NEEDED_FEATURE, REQUESTS_WITH_REPLY


class RefusedError(Exception):
    """The back-end acknowledged a request with something else than success."""


class VhostUserFrontend:
    """One connection's state.

    Attributes:
        protocol_features: what both sides have; set it after SET_PROTOCOL_FEATURES was sent.
    """

    protocol_features: ProtocolFeature

    def __init__(self) -> None:
        self.protocol_features = ProtocolFeature(0)
        self._outstanding: deque[Request] = deque()

    @property
    def awaits_reply(self) -> bool:
        """Whether a request is still to be answered."""
        return bool(self._outstanding)

    def request(self, request: Request, payload: bytes = b"", fds: tuple[int, ...] = ()) -> Message:
        """The message to send for a request.

        Raises:
            LocalProtocolError: the request needs a protocol feature that was not negotiated.
        """
        needed = NEEDED_FEATURE.get(request)
        if needed is not None and not self.protocol_features & needed:
            raise LocalProtocolError(f"{request.name} without protocol feature {needed.name}")
        wants_ack = request not in REQUESTS_WITH_REPLY and self.protocol_features & ProtocolFeature.REPLY_ACK
        if wants_ack or request in REQUESTS_WITH_REPLY:
            self._outstanding.append(request)
        return Message(request, FLAG_NEED_REPLY if wants_ack else 0, payload, fds)

    def take(self, message: Message) -> bytes:
        """Pair a reply with its request; the reply's payload, empty for an acknowledgement.

        Raises:
            RemoteProtocolError: it is no reply, or not to the request whose turn it is.
            RefusedError: it acknowledges that the request failed.
        """
        if not message.is_reply:
            raise RemoteProtocolError(f"message {message.request} from the back-end is not a reply")
        if not self._outstanding:
            raise RemoteProtocolError(f"a reply to request {message.request}, which nobody made")
        request = self._outstanding.popleft()
        if message.request != request:
            raise RemoteProtocolError(f"a reply to request {message.request} where one to {request.name} was due")
        if request in REQUESTS_WITH_REPLY:
            return message.payload
        status = decode_u64(message.payload)
        if status != 0:
            raise RefusedError(f"the back-end refused {request.name} ({status})")
        return b""
