"""An error for this guest, or a correct answer; never anything else, never outside its memory: any messages, any order.

A hostile front-end talks to a server that serves another guest beside it. Whatever it sends, with whatever descriptors,
and whatever its ring holds meanwhile: the server goes on, the neighbour is served and its memory is intact, the hostile
guest's own file is untouched outside of its regions, and no descriptor is left when it has gone.
"""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.virtio.balloon import Feature
from pagetide.virtio.vhost_user.messages import FLAG_NEED_REPLY, Message, Request, encode
from pagetide.virtio.vhost_user.payloads import (
    NO_FD,
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    ConfigSpace,
    MemoryRegion,
    encode_config,
    encode_mem_table,
    encode_single_region,
)
from pagetide.virtio.vhost_user.rules import PROTOCOL_FEATURES
from tests.host.guest.descriptor_kinds import open_fd
from tests.host.guest.served_guest import TIMEOUT_S, ServedGuest
from tests.host.guest_ring import PAGE, RING_PAGES
from tests.host.server_at_times import ServerAtTimes

pytestmark = pytest.mark.xdist_group("hostile messages")

CANARY_PAGES = 16
PAGES = 64
"""Of the hostile guest's file, the first of which no region of its holds."""
USER = 0x7000_0000_0000
GPA = 1 << 20
FEATURES = int(Feature.VERSION_1 | Feature.STATS_VQ | Feature.FREE_PAGE_HINT | Feature.REPORTING | 1 << 30)

WHOLE = MemoryRegion(GPA, 48 * PAGE, USER, CANARY_PAGES * PAGE)
SHARED = MemoryRegion(GPA - CANARY_PAGES * PAGE, CANARY_PAGES * PAGE, USER - CANARY_PAGES * PAGE, 0)
"""What no strategy names: the canaries."""
REGIONS = st.sampled_from(
    [
        WHOLE,
        WHOLE._replace(size_bytes=8 * PAGE),
        WHOLE._replace(gpa=GPA + 8 * PAGE, user_address=USER + 8 * PAGE, size_bytes=8 * PAGE),
        WHOLE._replace(user_address=USER + 4 * PAGE),
        WHOLE._replace(size_bytes=49 * PAGE),
        WHOLE._replace(gpa=(1 << 64) - PAGE),
        WHOLE._replace(user_address=(1 << 64) - PAGE),
        WHOLE._replace(mmap_offset_bytes=(1 << 64) - PAGE),
        WHOLE._replace(size_bytes=0),
        WHOLE._replace(gpa=GPA + 512),
    ]
)
QUEUES = st.integers(0, 5)
PLACES = st.sampled_from([0, 0x200, 0x400, 2 * PAGE, 48 * PAGE - 16, 48 * PAGE, 8 * PAGE - 16, 8, -16, 1 << 62])
PAYLOADS = st.one_of(
    st.binary(max_size=72),
    st.builds(VRING_STATE.pack, QUEUES, st.sampled_from([0, 1, 2, 3, 8, 64, 32768, 65536, 0xFFFF_FFFF])),
    QUEUES.map(U64.pack),
    QUEUES.map(lambda queue: U64.pack(queue | NO_FD)),
    st.sampled_from([FEATURES, int(PROTOCOL_FEATURES), 0, 0xF, (1 << 64) - 1]).map(U64.pack),
    REGIONS.map(encode_single_region),
    st.lists(REGIONS, max_size=3).map(encode_mem_table),
    st.builds(
        lambda offset, size: encode_config(ConfigSpace(offset, size, 0, bytes(size))),
        st.integers(0, 20),
        st.integers(0, 20),
    ),
    st.builds(
        lambda queue, *places: VRING_ADDRESS.pack(queue, 0, *(USER + place & (1 << 64) - 1 for place in places), 0),
        QUEUES,
        PLACES,
        PLACES,
        PLACES,
    ),
)
FDS = st.lists(st.sampled_from(["ram", "ram", "eventfd", "eventfd", "pipe", "null", "socket", "folder"]), max_size=3)
RIGHT_FDS = {
    Request.SET_MEM_TABLE: ["ram"],
    Request.ADD_MEM_REG: ["ram"],
    Request.SET_VRING_KICK: ["eventfd"],
    Request.SET_VRING_CALL: ["eventfd"],
    Request.SET_VRING_ERR: ["eventfd"],
    Request.SET_BACKEND_REQ_FD: ["socket"],
}

Step = tuple[bytes, list[str]]


def _message(request: int, payload: bytes, flags: int = FLAG_NEED_REPLY) -> bytes:
    return encode(Message(request, flags, payload))


def _start_of(queue: int) -> list[Step]:
    """What starts a queue."""
    return [
        (_message(Request.SET_VRING_NUM, VRING_STATE.pack(queue, 8)), []),
        (_message(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(queue, 0, USER, USER + 0x400, USER + 0x200, 0)), []),
        (_message(Request.SET_VRING_ERR, U64.pack(queue)), ["eventfd"]),
        (_message(Request.SET_VRING_KICK, U64.pack(queue)), ["eventfd"]),
    ]


PRELUDE: list[Step] = [
    (_message(Request.SET_PROTOCOL_FEATURES, U64.pack(int(PROTOCOL_FEATURES)), 0), []),
    (_message(Request.SET_FEATURES, U64.pack(FEATURES)), []),
    (_message(Request.SET_MEM_TABLE, encode_mem_table([WHOLE])), ["ram"]),
]
ANY_STEPS = st.one_of(
    st.builds(
        lambda request, payload, flags, fds: (_message(request, payload, flags), fds),
        st.sampled_from(Request) | st.integers(0, 60),
        PAYLOADS,
        st.sampled_from([0, FLAG_NEED_REPLY, FLAG_NEED_REPLY]),
        FDS,
    ),
    st.builds(
        lambda request, payload: (_message(request, payload), RIGHT_FDS[request]),
        st.sampled_from(list(RIGHT_FDS)),
        PAYLOADS,
    ),
    st.tuples(st.binary(min_size=1, max_size=40), FDS),
    st.builds(
        lambda request, size: (struct.pack("<III", request, 1, size), []),
        st.integers(0, 45),
        st.sampled_from([0, 1, 8, 4096, 1 << 20, 0xFFFF_FFFF]),
    ).map(lambda step: (step[0], list[str]())),
)
SCRIPTS = st.builds(
    lambda queue, mixed, rest: [*PRELUDE, *_start_of(queue), *mixed, *_start_of(queue), *rest],
    QUEUES,
    st.lists(ANY_STEPS, max_size=8),
    st.lists(ANY_STEPS, max_size=4),
)
RINGS = st.tuples(
    st.lists(
        st.tuples(
            st.integers(-2, 60).map(lambda page: GPA + page * PAGE & (1 << 64) - 1),
            st.sampled_from([0, 4, 16, 64, PAGE, 8 * PAGE, 0xFFFF_FFFF]),
            st.integers(0, 7),
            st.integers(0, 9),
        ),
        min_size=8,
        max_size=8,
    ),
    st.lists(st.integers(0, 9), min_size=8, max_size=8),
    st.integers(0, 9),
)


class Scene(ServerAtTimes):
    """A server, and the neighbour that it serves."""

    def __init__(self) -> None:
        super().__init__()
        ours, theirs = socket.socketpair()
        self.server.adopt(theirs, name="neighbour")
        self.neighbour: ServedGuest
        self.serving(lambda: setattr(self, "neighbour", ServedGuest(ours, pages=64)))

    def close(self) -> None:
        """Give everything back."""
        self.neighbour.close()
        super().close()

    def check_neighbour(self) -> None:
        """It is served, and the memory that it did not report is intact."""
        self.neighbour.ring.refill()
        self.serving(lambda: self.neighbour.report([(RING_PAGES, 2)]))
        assert self.neighbour.ring.resident_pages() == set(range(64)) - {RING_PAGES, RING_PAGES + 1}
        assert all(self.neighbour.ring.intact(page) for page in range(RING_PAGES + 2, 64))


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """One server for all examples."""
    with closing(Scene()) as scene:
        yield scene


def _send(sock: socket.socket, data: bytes, kinds: list[str], ram_fd: int) -> None:
    fds = [open_fd(kind, ram_fd) for kind in kinds]
    try:
        socket.send_fds(sock, [data], fds, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    finally:
        for fd in fds:
            os.close(fd)


def play(scene: Scene, script: list[Step], ring: tuple[list[tuple[int, int, int, int]], list[int], int]) -> None:
    """Be the hostile guest from its connection to its end, and look at what it left."""
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    canary = bytes(range(1, 256)) * (CANARY_PAGES * PAGE // 255 + 1)
    ram_fd = os.memfd_create("hostile")
    os.ftruncate(ram_fd, PAGES * PAGE)
    os.pwrite(ram_fd, canary[: CANARY_PAGES * PAGE], 0)
    descs, heads, idx = ring
    os.pwrite(ram_fd, b"".join(struct.pack("<QIHH", *desc) for desc in descs), CANARY_PAGES * PAGE)
    os.pwrite(ram_fd, struct.pack("<HH8H", 0, idx, *heads), CANARY_PAGES * PAGE + 0x200)
    ours, theirs = socket.socketpair()
    guest = scene.server.adopt(theirs, name="hostile")
    with ours:
        for data, kinds in script:
            # Who is cut off can send no more, and who does not read his replies is not listened to.
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                _send(ours, data, kinds, ram_fd)
            scene.server.run_once(0)
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while ours.recv(65536, socket.MSG_DONTWAIT):
                pass
        for _ in range(4):
            scene.server.run_once(0)
    for _ in range(1000):
        if guest not in scene.server.guests:
            break
        scene.server.run_once(0.1)
    assert guest not in scene.server.guests, "it has hung up"
    kept = os.pread(ram_fd, CANARY_PAGES * PAGE, 0) == canary[: CANARY_PAGES * PAGE]
    os.close(ram_fd)
    assert kept, "memory outside of the guest's regions was changed"
    end_s = time.monotonic() + TIMEOUT_S  # what may not answer is closed by a thread
    while len(list(Path("/proc/self/fd").iterdir())) != open_before:
        assert time.monotonic() < end_s, "a descriptor is left"
        time.sleep(0.001)


@settings(deadline=None, max_examples=300)
@given(script=SCRIPTS, ring=RINGS)
def test_any_messages_harm_nobody_else(
    scene: Scene, script: list[Step], ring: tuple[list[tuple[int, int, int, int]], list[int], int]
) -> None:
    """Whatever comes: the server lives, the neighbour is served, canaries are intact, and nothing is left."""
    play(scene, script, ring)
    scene.check_neighbour()


def test_the_hostile_guest_can_do_what_it_may(scene: Scene) -> None:
    """The test can fail: a hostile guest that shares its canary pages and reports them loses them."""
    with_canary = (_message(Request.SET_MEM_TABLE, encode_mem_table([WHOLE, SHARED])), ["ram", "ram"])
    script = [*PRELUDE[:2], with_canary, *_start_of(4)]
    ring = ([(SHARED.gpa, PAGE, 2, 0)] * 8, [0] * 8, 1)
    with pytest.raises(AssertionError, match="outside of the guest's regions"):
        play(scene, script, ring)
