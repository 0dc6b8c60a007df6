"""What a front-end may give with a message: a short list, so that nothing else is watched, written to or mapped.

Other descriptors can end or hold up a server for all: an epoll set can be nested until it cannot be watched again, the
end of a connection keeps that connection for ever, and a file of a file system that the front-end serves (FUSE) makes
system calls wait for it.

Real front-ends give eventfds to be kicked, called and told of errors (QEMU, Cloud Hypervisor, OpenVMM), but Linux's UML
gives one end of a socketpair to be called, since it wants a signal from it (arch/um/drivers/virtio_uml.c, 6.12). The
channel for our requests is such an end with both.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

from pagetide import foreign_fds
from pagetide.host.guest.gone import GuestGoneError
from pagetide.virtio.vhost_user.messages import Message, Request
from pagetide.virtio.vhost_user.payloads import NO_FD, U64, decode_u64


class _Allowed(NamedTuple):
    """What may come with a message.

    Attributes:
        is_kind: whether a descriptor is of that kind.
        what: what that is, for people.
        can_do_without: whether a guest can be served if it gives something else.
    """

    is_kind: Callable[[int], bool]
    what: str
    can_do_without: bool = False


def _is_signal(fd: int) -> bool:
    return foreign_fds.is_eventfd(fd) or foreign_fds.is_one_way_socket(fd)


_KICK = _Allowed(foreign_fds.is_eventfd, "an eventfd", can_do_without=True)
_SIGNAL = _Allowed(_is_signal, "an eventfd or an end of a socketpair with nothing to read", can_do_without=True)
_CHANNEL = _Allowed(foreign_fds.is_one_way_socket, "an end of a Unix stream socketpair with nothing to read")
_MEMORY = _Allowed(foreign_fds.is_local_file, "a memfd, or a file on tmpfs, hugetlbfs or a local disk")

_ALLOWED = {
    int(Request.SET_VRING_KICK): _KICK,
    int(Request.SET_VRING_CALL): _SIGNAL,
    int(Request.SET_VRING_ERR): _SIGNAL,
    int(Request.SET_BACKEND_REQ_FD): _CHANNEL,
    int(Request.SET_MEM_TABLE): _MEMORY,
    int(Request.ADD_MEM_REG): _MEMORY,
    int(Request.REM_MEM_REG): _MEMORY,
    int(Request.SET_INFLIGHT_FD): _MEMORY,
}
"""By message; a message that is not here may come with none."""


class Door:
    """The one way in for descriptors of one connection."""

    def __init__(self, log: logging.LoggerAdapter[logging.Logger]) -> None:
        """Let nothing in yet; what is kept out is said once for each kind of message.

        Args:
            log: where to say it.
        """
        self._log = log
        self._told: set[int] = set()

    def admit(self, message: Message) -> Message:
        """The message without descriptors of kinds that nobody may give with it; nothing has touched them yet.

        A queue without its eventfds is one that is polled, for which the protocol has a way (the text,
        "VHOST_USER_SET_VRING_KICK"): it is not kicked or called, and everything else goes on.

        Raises:
            GuestGoneError: there is no way to go on without them.
        """
        allowed = _ALLOWED.get(message.request)
        if allowed is None or all(map(allowed.is_kind, message.fds)):
            return message
        given = ", ".join(foreign_fds.describe(fd) for fd in message.fds if not allowed.is_kind(fd))
        reason = f"{Request(message.request).name} comes with {given}, not with {allowed.what}"
        closed = [foreign_fds.close(fd) for fd in message.fds]
        if not all(closed) or not allowed.can_do_without or len(message.payload) != U64.size:
            raise GuestGoneError(reason)
        if message.request not in self._told:
            self._told.add(message.request)
            self._log.error("%s: it is not used", reason)
        return message._replace(payload=U64.pack(decode_u64(message.payload) | NO_FD), fds=())
