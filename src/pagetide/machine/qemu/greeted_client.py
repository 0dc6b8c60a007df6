"""`qemu.qmp` for a monitor that begins with an event.

Of a client that has left QEMU remembers until the next one's greeting that it may have events (`mon->commands`,
monitor/qmp.c, QEMU 7.2 and 11), so one that happens as the next one comes is told before the greeting.
"""

from qemu.qmp import QMPClient
from qemu.qmp.message import Message


class GreetedClient(QMPClient):
    """A client that passes over events in the greeting's place."""

    async def _do_recv(self) -> Message:
        message = await super()._do_recv()
        while self.greeting is None and "event" in message:
            message = await super()._do_recv()
        return message
