"""A connection that a successor can go on with: no message is lost, none is answered twice, whenever we are killed.

A message is looked at and not taken (MSG_PEEK), acted on, and then the state after it is written, with the reply
(`Keep`). That write decides: a successor that finds the old state finds the message, too, and acts on it again. Only
then is the message taken from the socket and the reply sent. For a kill between those, the kernel knows how far it
went: the socket's SO_PEEK_OFF, set before the write to a number that only this state has, sinks by as much as is taken,
and the replies' file position rises by as much as is sent. A reply with a descriptor cannot go that way. It was sent if
the file that went with it is open elsewhere, or if a peer that had nothing more to say before has said more since. Only
a peer that closed the file and said nothing until there was a successor would have such a reply twice.

What a message does outside of the state may be done twice: queues begin again where their used ring stands, calls and
word of a changed configuration may come once too often, a reset of what was reset is none.
"""

import fcntl
import os
import socket
import sys
import termios
from collections.abc import Callable

from pagetide import foreign_fds
from pagetide.host.device.kept_state import GuestKept
from pagetide.host.guest.keep import Keep, mark_sent, mark_waited_for, was_sent, was_waited_for
from pagetide.virtio.vhost_user.messages import HEADER_BYTES, PAYLOAD_BYTES_MAX, Message, Request, encode
from pagetide.virtio.vhost_user.payloads import NO_FD
from pagetide.virtio.vhost_user.rules import REQUESTS_WITH_FDS
from pagetide.virtio.vhost_user.transport import (
    Connection,
    PeerGoneError,
    check_received,
    receive_some,
    send_some,
)

_SO_PEEK_OFF = 42  # include/uapi/asm-generic/socket.h
_SHIFT = 16
_MARKS = 1024
_SIZE = slice(8, 12)  # of a header
_WITH_A_FLAG = (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR)


class KeptConnection(Connection):
    """One end of a vhost-user connection."""

    def __init__(self, sock: socket.socket, keep: Keep, describe: Callable[[], GuestKept]) -> None:
        """Take over a connected socket; one that a predecessor has kept, to `resume`.

        Args:
            sock: the socket.
            keep: where it is kept.
            describe: what is known besides the connection itself.
        """
        super().__init__(sock)
        self._keep = keep
        self._describe = describe
        self._looked_bytes = 0
        self._reply_fd = -1

    def receive(self) -> Message | None:
        """As `Connection.receive`; each message is followed by `done`, before another is asked for."""
        assert self._looked_bytes == 0, "a message is not done with"
        while True:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, -1)
                wanted_bytes = self._reader.wanted_bytes if self._reader.is_amid_message else self._whole_bytes()
                data, fds, flags = receive_some(self._socket, wanted_bytes, socket.MSG_PEEK)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                data, fds, flags = b"", [], 0
            if fds and len(data) == wanted_bytes and self._are_of_a_later_message(data):
                for fd in fds:
                    foreign_fds.close(fd)
                fds, flags = [], 0
            self._reader.receive(data, fds)
            self._looked_bytes = len(data)
            check_received(fds, flags)
            if not data:
                self.at_end = True
                return None
            for fd in fds:
                self._keep.note(fd)
            message = self._reader.next_message()
            if message is not None:
                return message
            self.keep()

    def done(self, answer: Message | None) -> bool:
        """The message is acted on: keep the state after it, take it from the socket, and answer."""
        if answer is not None:
            for fd in answer.fds:
                self._reply_fd = os.dup(fd)
                self._keep.note(self._reply_fd)
            self._keep.add_reply(encode(answer))
        self.keep()
        return self.flush()

    def changed(self) -> None:
        """Keep the state as it is now, unless a message is being acted on, whose end does it."""
        if not self._looked_bytes:
            self.keep()

    def keep(self) -> None:
        """Keep the state as it is now."""
        taken_bytes, self._looked_bytes = self._looked_bytes, 0
        if taken_bytes:
            mark = _mark(self._keep.sequence + 1) + taken_bytes
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, mark)
        state = self._describe()
        part, part_fds = self._reader.part
        self._keep.write(
            GuestKept(
                state.name,
                state.socket,
                state.session,
                taken_bytes,
                part,
                [self._keep.number_of(fd) for fd in part_fds],
                self._keep.replies_end,
                self._keep.number_of(self._reply_fd),
            )
        )
        self._take(taken_bytes)

    def flush(self) -> bool:
        """Go on with replies; whether nothing is left now.

        Raises:
            PeerGoneError: the peer has closed its end.
        """
        try:
            if self._reply_fd >= 0:
                self._send_with_fd()
            self._keep.send_replies(self.fileno())
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError) as error:
            self.at_end = True
            raise PeerGoneError("the peer closed the connection") from error
        return True

    def close(self) -> None:
        """Close the socket here, and all else that the connection holds; whoever has the keep's box has them still."""
        self._forget_reply_fd()
        super().close()

    def resume(self) -> None:
        """Finish what a predecessor's last state has decided."""
        kept = self._keep.kept
        assert kept is not None
        mark = _mark(self._keep.sequence)
        left_bytes = self._socket.getsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF) - mark
        if 0 < left_bytes <= kept.taken_bytes:
            self._take(left_bytes)
        self._reader.receive(kept.part, [self._keep.fds.pop(number) for number in kept.part_fds])
        if kept.reply_fd >= 0:
            reply_fd = self._keep.fds.pop(kept.reply_fd)
            if self._keep.unsent_bytes:
                more = was_waited_for(reply_fd) and self._waiting_bytes() > 0
                if more or was_sent(reply_fd):
                    self._keep.replies_gone()
            if self._keep.unsent_bytes:
                self._reply_fd = reply_fd
            else:
                os.close(reply_fd)

    def _whole_bytes(self) -> int:
        """The size of the next message, or of what there is of its header."""
        header = self._socket.recv(HEADER_BYTES, socket.MSG_PEEK)
        if len(header) < HEADER_BYTES:
            return max(1, len(header))
        size_bytes = int.from_bytes(header[_SIZE], "little")
        return HEADER_BYTES + (size_bytes if size_bytes <= PAYLOAD_BYTES_MAX else 0)

    def _are_of_a_later_message(self, data: bytes) -> bool:
        """Whether the descriptors that were looked at with these bytes are not theirs.

        Linux goes on to the next message after the last byte that was asked for, if the first has no descriptors, and
        gives those of that one (net/unix/af_unix.c, unix_stream_read_generic; seen in 6.18). So where there is more,
        a message is taken to have descriptors if it is one that needs them.
        """
        if self._waiting_bytes() == len(data):
            return False
        whole = self._reader.part[0] + data
        request, payload = int.from_bytes(whole[:4], "little"), whole[HEADER_BYTES:]
        if request in _WITH_A_FLAG:
            return bool(int.from_bytes(payload, "little") & NO_FD)
        return request not in REQUESTS_WITH_FDS or request == Request.REM_MEM_REG

    def _waiting_bytes(self) -> int:
        """How much has come and was not taken."""
        return int.from_bytes(fcntl.ioctl(self.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)

    def _take(self, size_bytes: int) -> None:
        """Take what was looked at from the socket; the kernel closes the descriptors that come with it again."""
        while size_bytes:
            taken_bytes = len(self._socket.recv(size_bytes))
            assert taken_bytes, "what was looked at is there"
            size_bytes -= taken_bytes

    def _send_with_fd(self) -> None:
        mark_waited_for(self._reply_fd, is_so=self._waiting_bytes() == 0)
        copy = mark_sent(self._reply_fd)
        try:
            self._keep.replies_sent(send_some(self._socket, self._keep.unread_reply(), [copy]))
        except OSError:
            mark_waited_for(self._reply_fd, is_so=False)
            raise
        finally:
            os.close(copy)
        mark_waited_for(self._reply_fd, is_so=False)
        self._forget_reply_fd()

    def _forget_reply_fd(self) -> None:
        if self._reply_fd >= 0:
            os.close(self._reply_fd)
            self._reply_fd = -1


def _mark(sequence: int) -> int:
    """What SO_PEEK_OFF is set to for a state, less what it takes; no two states in succession have the same."""
    return sequence % _MARKS + 1 << _SHIFT
