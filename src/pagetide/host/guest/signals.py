"""What is written to descriptors that a guest gave: its eventfds, and its channel for requests of ours.

The guest holds the other ends and may have filled or closed them, or have given something else altogether.
"""

import os
import socket
import time

from pagetide.host.guest.gone import GuestGoneError
from pagetide.virtio.vhost_user.messages import Message, encode


def signal_eventfd(fd: int) -> None:
    """Signal an eventfd of the guest's, if it gave one (-1 otherwise): a driver that polls need not.

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
