#!/bin/bash
# A look at a message on a Unix stream socket (recvmsg with MSG_PEEK, asked for exactly the message's bytes) gives the
# descriptors of the *next* message, if the first has none. Taking the same bytes (recvmsg without MSG_PEEK) gives none.
# So who looks before taking, as a proxy or a daemon that must not lose a message when it is killed, sees, say, vhost-user's
# SET_STATUS with the eventfd of the SET_VRING_CALL behind it.
#
# Where: net/unix/af_unix.c, unix_stream_read_generic: after the last byte that was asked for, a peek goes on to the next
# buffer ("goto again" without a look at the size that is left), copies none of it, and duplicates its descriptors.
# recv(2), unix(7) and sendmsg(2) do not say so; unix(7) has descriptors arrive with the data that they were sent with.
#
# Seen with Linux 6.18 and Python 3.11 (nothing is installed: the kernel that runs is what is tested):
#   looked at 4 bytes b'one.' and 1 descriptor(s)
#   took      4 bytes b'one.' and 0 descriptor(s)
#   took      4 bytes b'two.' and 1 descriptor(s)
#
# Exits with 1 if the behaviour is another one.
set -euo pipefail
echo "Linux $(uname -r), $(python3 --version)"
python3 - <<'PYTHON'
import array, os, socket, sys

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
eventfd = os.eventfd(0)
ours.send(b"one.")
ours.sendmsg([b"two."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [eventfd]))])


def receive(how: int) -> tuple[bytes, int]:
    data, ancillary, _, _ = theirs.recvmsg(4, socket.CMSG_SPACE(4), how)
    fds = array.array("i", b"".join(content for _, _, content in ancillary))
    for fd in fds:
        os.close(fd)
    return data, len(fds)


looked, first, second = receive(socket.MSG_PEEK), receive(0), receive(0)
for word, (data, count) in (("looked at", looked), ("took     ", first), ("took     ", second)):
    print(f"{word} {len(data)} bytes {data} and {count} descriptor(s)")
sys.exit((looked, first, second) != ((b"one.", 1), (b"one.", 0), (b"two.", 1)))
PYTHON
