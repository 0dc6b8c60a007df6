"""What is written to descriptors that a guest gave: its eventfds, and its channel for requests of ours.

The guest holds the other ends and may have filled or closed them, or have given something else altogether.
"""

import os
import socket
import time

from pagetide.host.guest.gone import GuestGoneError
from pagetide.virtio.vhost_user.backend import VhostUserBackend
from pagetide.virtio.vhost_user.messages import Message, encode
from pagetide.virtio.vhost_user.transport import Connection


def signal_eventfd(fd: int) -> None:
    """Signal an eventfd of the guest's, if it gave one (-1 otherwise): a driver that polls need not.

    A socket whose other end is closed is as good as none: of a front-end that was killed, its connection ends next.

    Raises:
        GuestGoneError: it cannot be written to.
    """
    if fd < 0:
        return
    start_s = time.monotonic()
    try:
        os.eventfd_write(fd, 1)
    except BlockingIOError:
        return  # full: the call is there already
    except (BrokenPipeError, ConnectionResetError):
        return
    except OSError as error:
        raise not_signalled(error, time.monotonic() - start_s) from error


def not_signalled(error: OSError, held_up_s: float) -> GuestGoneError:
    """What a write to an eventfd that failed after so long means for the guest that gave it."""
    if isinstance(error, InterruptedError):
        return GuestGoneError("made its eventfd block, and filled it", held_up_s=held_up_s)
    return GuestGoneError(f"cannot be signalled: {error}")


def send_on_channel(channel_fd: int, message: Message) -> bool:
    """Send a request of ours on the guest's channel for them (SET_BACKEND_REQ_FD); not at all if nobody reads there.

    Returns:
        False if its other end is closed, as a front-end may that has reset its device.

    Raises:
        GuestGoneError: it is no socket at all.
    """
    try:
        channel = socket.socket(fileno=channel_fd)
        try:
            channel.send(encode(message), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        finally:
            channel.detach()
    except BlockingIOError:
        pass
    except (BrokenPipeError, ConnectionResetError):
        return False
    except OSError as error:
        raise GuestGoneError(f"cannot be told on its channel for requests: {error}") from error
    return True


class Notices:
    """What the driver at one connection is told without having asked. Methods raise GuestGoneError as the above.

    Attributes:
        untold: whether it is still to be told that the configuration has changed.
    """

    untold: bool

    def __init__(self, backend: VhostUserBackend, connection: Connection) -> None:
        """Have nothing to tell.

        Args:
            backend: knows the ways that the driver has given.
            connection: keeps for a successor what is untold.
        """
        self.untold = False
        self._backend = backend
        self._connection = connection

    def call_fd(self, index: int) -> int:
        """How the driver is told that elements of a queue are given back; -1 if it is not."""
        return self._backend.vrings.call_fd(index)

    def call(self, index: int) -> None:
        """Tell the driver that elements of a queue are given back."""
        signal_eventfd(self.call_fd(index))

    def config_changed(self) -> bool:
        """Tell the driver that the configuration has changed, now or when it is there; False if it has given no way to.

        A front-end need not expect to be told while no queue is started, and QEMU's generic device ends if it is.
        """
        told = self._backend.config_changed()
        self.untold = True
        self._connection.changed()  # it is a successor's to tell if we are killed now
        if told is not None:
            if send_on_channel(*told):
                self.untold = False
            else:
                self._backend.drop_channel()
        return self._backend.has_channel
