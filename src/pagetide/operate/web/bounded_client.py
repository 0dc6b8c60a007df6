"""A client's connection that is not kept for nothing.

There are so many, and each has so long to say what it wants, and to take what it is told.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CLIENTS_MAX = 64
"""Most connections at once; one beyond that is closed before it says anything."""

REQUEST_MAX_S = 15.0
"""How long a request may take to arrive, from the connection or the answer before it on."""

STALLED_MAX_S = 30.0
"""How long a client may take nothing of what fills the buffers."""


class BoundedClient(H11Protocol):
    """As uvicorn's, which waits for ever for a first request and for who reads, and counts only those that ask."""

    def __init__(self, *args: Any, **named: Any) -> None:
        """As uvicorn's."""
        super().__init__(*args, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or close it."""
        super().connection_made(transport)
        if len(self.connections) > CLIENTS_MAX:
            transport.abort()
        else:
            self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._drop_deadline()
        self._drop_stalled()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A request has its time until all of it is there."""
        super().data_received(data)
        if self.conn.their_state is h11.DONE:
            self._drop_deadline()

    def on_response_complete(self) -> None:
        """Begin to wait for the next one."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            self._set_deadline()

    def pause_writing(self) -> None:
        """The buffers are full: begin to wait for the client to read."""
        super().pause_writing()
        self._drop_stalled()
        self._wait_for_reading()

    def resume_writing(self) -> None:
        """It reads."""
        self._drop_stalled()
        super().resume_writing()

    def _set_deadline(self) -> None:
        self._drop_deadline()
        self._deadline = self.loop.call_later(REQUEST_MAX_S, self.transport.abort)

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _wait_for_reading(self) -> None:
        left_bytes = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(STALLED_MAX_S, self._look_whether_it_reads, left_bytes)

    def _look_whether_it_reads(self, before_bytes: int) -> None:
        if self.transport.get_write_buffer_size() < before_bytes:
            self._wait_for_reading()
        else:
            self.transport.abort()

    def _drop_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
