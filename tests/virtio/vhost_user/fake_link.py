"""A front-end and a back-end joined without sockets; descriptors are numbers that are counted, not files."""

from collections.abc import Callable

from pagetide.virtio.vhost_user.backend import VhostUserBackend
from pagetide.virtio.vhost_user.events import Event
from pagetide.virtio.vhost_user.frontend import VhostUserFrontend
from pagetide.virtio.vhost_user.messages import Message, MessageReader, Request, encode


class FakeLink:
    """Carries requests one way and replies the other, in pieces of any size.

    Attributes:
        events: what the back-end's messages meant, in order.
        closed: the descriptors that the back-end gave up.
        refuses: asked for each event; True makes the back-end fail at it.
    """

    def __init__(self, features: int, queue_count: int = 3, config: bytes = bytes(16), piece_bytes: int = 4096) -> None:
        self.frontend = VhostUserFrontend()
        self.backend = VhostUserBackend(features, queue_count, bytearray(config))
        self.events: list[Event] = []
        self.closed: list[int] = []
        self.refuses: Callable[[Event], bool] = lambda _: False
        self._piece_bytes = piece_bytes
        self._there, self._back = MessageReader(), MessageReader()

    def call(self, request: Request, payload: bytes = b"", fds: tuple[int, ...] = ()) -> bytes:
        """Make a request and take its reply; RefusedError and protocol errors come out."""
        return self.deliver(self.frontend.request(request, payload, fds))

    def deliver(self, message: Message) -> bytes:
        """Carry one message there, have it handled, and its reply back."""
        taken = self._carry(message, self._there)
        try:
            succeeded = True
            for event in self.backend.take(taken):
                self.events.append(event)
                succeeded = succeeded and not self.refuses(event)
        finally:
            self.closed += self.backend.take_unneeded_fds()
        reply = self.backend.answer(taken, succeeded=succeeded)
        return b"" if reply is None else self.frontend.take(self._carry(reply, self._back))

    def _carry(self, message: Message, reader: MessageReader) -> Message:
        data, fds = encode(message), message.fds
        while data:
            piece = data[: min(self._piece_bytes, reader.wanted_bytes)]
            reader.receive(piece, fds)
            data, fds = data[len(piece) :], ()
            if data and (early := reader.next_message()) is not None:
                raise AssertionError(f"{early} is complete before its end")
        whole = reader.next_message()
        assert whole is not None
        return whole
