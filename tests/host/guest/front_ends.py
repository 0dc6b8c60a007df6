"""Two front-ends that are not QEMU, played message by message: Cloud Hypervisor and OpenVMM."""

import array
import os
import socket
import struct
from pathlib import Path

from pagetide.host.device.balloon import FEATURES
from pagetide.virtio.balloon import Feature, Queue, queues
from pagetide.virtio.split_ring.ring import RING_IDX
from pagetide.virtio.vhost_user.messages import F_PROTOCOL_FEATURES, ProtocolFeature, Request
from pagetide.virtio.vhost_user.payloads import (
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    ConfigSpace,
    Inflight,
    MemoryRegion,
    decode_config,
    decode_inflight,
    decode_u64,
    decode_vring_state,
    encode_config,
    encode_inflight,
    encode_mem_table,
)
from tests.host.guest.served_guest import TIMEOUT_S, wait_readable
from tests.host.guest_ring import GPA, PAGE, SIZE, GuestRing

P = ProtocolFeature
_HEADER = struct.Struct("<III")
_GETS = frozenset(request for request in Request if request.name.startswith("GET_"))
_QUEUES = (Queue.INFLATE, Queue.DEFLATE, Queue.REPORTING)
_DRIVER = int(FEATURES & ~(Feature.STATS_VQ | Feature.FREE_PAGE_HINT))


class FrontEnd:
    """One connection, with the message flags of whom is played; a guest that uses one ring, and leaves two alone.

    Attributes:
        told: our end of the channel for the back-end's requests, if there is one.
    """

    user_offset = 0x7000_0000_0000

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ring = GuestRing(1024, _DRIVER)
        self.ring.ram.words[-64 * PAGE // 8 :] = 0  # where the rings are that are not used
        self.kick_fd, self.call_fd, self._idle_fd = (os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3))
        self.index = queues(_DRIVER).index(Queue.REPORTING)
        self.told: socket.socket | None = None
        self.inflight: tuple[Inflight, int] | None = None
        self.offered = self.protocol = 0
        self.connect()

    def connect(self) -> None:
        """A new connection; nothing is negotiated on it."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self.path))
        self.need_reply = False
        self.need_reply_of_gets = False

    def call(self, request: Request, payload: bytes = b"", *fds: int) -> tuple[bytes, list[int]]:
        """Send a message; the reply where one is due. A refusal fails the test, as it ends who is played."""
        is_get = request in _GETS
        flags = 1 | (8 if self.need_reply and (not is_get or self.need_reply_of_gets) else 0)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([_HEADER.pack(request, flags, len(payload)) + payload], rights)
        if not is_get and not flags & 8:
            return b"", []
        header, given = self._receive(_HEADER.size)
        number, flags, size = _HEADER.unpack(header)
        answer, _ = self._receive(size)
        assert (number, flags & 7) == (request, 5), "a reply, of this version, to this request"
        if not is_get:
            assert decode_u64(answer) == 0, f"{request.name} was refused"
        return answer, given

    def _receive(self, size: int) -> tuple[bytes, list[int]]:
        data, fds = b"", array.array("i")
        while len(data) < size:
            piece, ancillary, _, _ = self.sock.recvmsg(size - len(data), socket.CMSG_SPACE(4))
            assert piece, "the back-end hung up"
            data += piece
            for _, _, value in ancillary:
                fds.frombytes(value)
        return data, list(fds)

    def number(self, request: Request) -> int:
        """What a request for one number is answered."""
        return decode_u64(self.call(request)[0])

    def read_config(self, offset: int, size: int) -> bytes:
        """Read configuration space; anything but a reply of the same place and size ends who is played."""
        answer, _ = self.call(Request.GET_CONFIG, encode_config(ConfigSpace(offset, size, 0, bytes(size))))
        config = decode_config(answer)
        assert config[:2] == (offset, size)
        return config.data

    def set_mem_table(self) -> None:
        """Share the guest's memory."""
        region = MemoryRegion(GPA, self.ring.pages * PAGE, GPA + self.user_offset, 0)
        self.call(Request.SET_MEM_TABLE, encode_mem_table([region]), self.ring.ram.fd)

    def address(self, index: int) -> bytes:
        """SET_VRING_ADDR's payload; the queues that are not used lie in pages of their own."""
        aside = 0 if index == self.index else (self.ring.pages - 16 * (index + 1)) * PAGE
        desc, avail, used = (gpa + aside + self.user_offset for gpa in self.ring.place[:3])
        return VRING_ADDRESS.pack(index, 0, desc, used, avail, 0)

    def avail_idx(self, index: int) -> int:
        """The driver's available index, as it stands in memory."""
        if index != self.index:
            return 0
        at = self.ring.place.avail_gpa - GPA + RING_IDX
        return int.from_bytes(self.ring.ram.words.view("u1")[at : at + 2].tobytes(), "little")

    def fds_of(self, index: int) -> tuple[int, int]:
        """Kick and call descriptors."""
        return (self.kick_fd, self.call_fd) if index == self.index else (self._idle_fd, self._idle_fd)

    def report(self, page: int, pages: int) -> None:
        """The driver reports a block, and waits until it is back."""
        self.submit(page, pages)
        self.wait_used()

    def submit(self, page: int, pages: int) -> None:
        """The driver reports a block."""
        self.ring.add([(page, pages)])
        if self.ring.driver.publish():
            os.eventfd_write(self.kick_fd, 1)

    def wait_used(self) -> None:
        """Wait for an element to be back."""
        while not self.ring.driver.take_used():
            if not self.ring.driver.arm_call():
                wait_readable(self.call_fd)
                os.eventfd_read(self.call_fd)

    def close(self) -> None:
        """Leave, and give everything back."""
        self.sock.close()
        if self.told is not None:
            self.told.close()
        if self.inflight is not None:
            os.close(self.inflight[1])
        for fd in (self.kick_fd, self.call_fd, self._idle_fd):
            os.close(fd)
        self.ring.ram.close()


class CloudHypervisor(FrontEnd):
    """As 52 and newer do for --generic-vhost-user."""

    wanted = P.CONFIG | P.MQ | P.CONFIGURE_MEM_SLOTS | P.REPLY_ACK | P.INFLIGHT_SHMFD | P.LOG_SHMFD | P.BACKEND_REQ

    def negotiate(self) -> None:
        """When the device is made: nothing of memory or queues yet."""
        self.call(Request.SET_OWNER)
        self.offered = self.number(Request.GET_FEATURES)
        self.protocol = self.number(Request.GET_PROTOCOL_FEATURES) & self.wanted
        self.call(Request.SET_PROTOCOL_FEATURES, U64.pack(self.protocol))
        self.need_reply = self.need_reply_of_gets = True
        assert self.number(Request.GET_QUEUE_NUM) >= len(_QUEUES)

    def activate(self) -> None:
        """When the driver is ready."""
        self.call(Request.SET_FEATURES, U64.pack(_DRIVER | F_PROTOCOL_FEATURES))
        self.set_mem_table()
        for index in range(len(_QUEUES)):
            self.call(Request.SET_VRING_NUM, VRING_STATE.pack(index, SIZE))
        if self.inflight is None:
            asked = encode_inflight(Inflight(0, 0, len(_QUEUES), SIZE))
            answer, fds = self.call(Request.GET_INFLIGHT_FD, asked)
            self.inflight = decode_inflight(answer), fds[0]
        self.call(Request.SET_INFLIGHT_FD, encode_inflight(self.inflight[0]), self.inflight[1])
        for index in range(len(_QUEUES)):
            kick_fd, call_fd = self.fds_of(index)
            self.call(Request.SET_VRING_ADDR, self.address(index))
            self.call(Request.SET_VRING_BASE, VRING_STATE.pack(index, self.avail_idx(index)))
            self.call(Request.SET_VRING_CALL, U64.pack(index), call_fd)
            self.call(Request.SET_VRING_KICK, U64.pack(index), kick_fd)
        self.enable(1)
        if self.told is not None:
            self.told.close()
        self.told, theirs = socket.socketpair()
        with theirs:
            self.call(Request.SET_BACKEND_REQ_FD, b"", theirs.fileno())

    def enable(self, enable: int) -> None:
        """Pause (0) and resume (1) do this, and a reset before it stops the queues."""
        for index in range(len(_QUEUES)):
            self.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(index, enable))

    def reset(self) -> None:
        """The driver resets the device: no message says so, and the channel is closed."""
        for index in range(len(_QUEUES)):
            self.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(index, 0))
            self.call(Request.GET_VRING_BASE, VRING_STATE.pack(index, 0))
        assert self.told is not None
        self.told.close()
        self.told = None
        assert self.inflight is not None
        os.close(self.inflight[1])
        self.inflight = None

    def reconnect(self) -> None:
        """The back-end hung up: the same features, without asking again, and the same in-flight memory."""
        self.sock.close()
        self.connect()
        self.call(Request.SET_OWNER)
        self.number(Request.GET_FEATURES)
        self.call(Request.SET_PROTOCOL_FEATURES, U64.pack(self.protocol))
        self.need_reply = self.need_reply_of_gets = True
        self.activate()


class OpenVmm(FrontEnd):
    """As it does for --vhost-user SOCKET,device_id=5."""

    user_offset = 1 << 52

    def negotiate(self, *, early: bool) -> None:
        """When the device is made; early versions first accept every feature, and read all of configuration."""
        self.offered = self.number(Request.GET_FEATURES)
        if early:
            self.call(Request.SET_FEATURES, U64.pack(self.offered | F_PROTOCOL_FEATURES))
        self.protocol = self.number(Request.GET_PROTOCOL_FEATURES) & (P.MQ | P.REPLY_ACK | P.CONFIG | P.RESET_DEVICE)
        self.call(Request.SET_PROTOCOL_FEATURES, U64.pack(self.protocol))
        self.call(Request.SET_OWNER)
        assert self.number(Request.GET_QUEUE_NUM) >= len(_QUEUES)
        if early:
            assert self.read_config(0, 256)[16:] == bytes(240)
        self.need_reply = True

    def start(self, *, first: bool) -> None:
        """Memory is shared once a connection, before the first queue."""
        if first:
            self.set_mem_table()
        self.call(Request.SET_FEATURES, U64.pack(_DRIVER & self.offered | F_PROTOCOL_FEATURES))
        for index in range(len(_QUEUES)):
            kick_fd, call_fd = self.fds_of(index)
            self.call(Request.SET_VRING_NUM, VRING_STATE.pack(index, SIZE))
            self.call(Request.SET_VRING_ADDR, self.address(index))
            self.call(Request.SET_VRING_BASE, VRING_STATE.pack(index, 0))
            self.call(Request.SET_VRING_KICK, U64.pack(index), kick_fd)
            self.call(Request.SET_VRING_CALL, U64.pack(index), call_fd)
            self.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(index, 1))

    def stop(self) -> list[int]:
        """Where each queue stood."""
        stood = []
        for index in range(len(_QUEUES)):
            self.call(Request.SET_VRING_ENABLE, VRING_STATE.pack(index, 0))
            answer, _ = self.call(Request.GET_VRING_BASE, VRING_STATE.pack(index, 0))
            stood.append(decode_vring_state(answer)[1])
        return stood
