"""A front-end and a back-end that have negotiated, with one region of memory."""

from pagetide.virtio.balloon import Feature
from pagetide.virtio.vhost_user.messages import (
    ProtocolFeature,
    Request,
)
from pagetide.virtio.vhost_user.payloads import (
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    MemoryRegion,
    VringAddress,
)
from pagetide.virtio.vhost_user.rules import PROTOCOL_FEATURES
from tests.virtio.vhost_user.fake_link import FakeLink

FEATURES = int(Feature.VERSION_1 | Feature.EVENT_IDX | Feature.INDIRECT_DESC | Feature.REPORTING)
REGION = MemoryRegion(0, 1 << 30, 0, 0)
KICK, CALL, ERR = Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR


def negotiated(features: ProtocolFeature = PROTOCOL_FEATURES) -> FakeLink:
    """A link on which these protocol features are agreed on."""
    link = FakeLink(FEATURES)
    link.call(Request.SET_PROTOCOL_FEATURES, U64.pack(features))
    link.frontend.protocol_features = features
    return link


def start(link: FakeLink, queue: int = 0, base: int = 0, kick_fd: int = 10) -> VringAddress:
    """Start a queue as most front-ends do."""
    address = VringAddress(queue, 0, 0x1000, 0x3000, 0x2000)
    link.call(Request.SET_VRING_NUM, VRING_STATE.pack(queue, 32))
    link.call(Request.SET_VRING_BASE, VRING_STATE.pack(queue, base))
    link.call(Request.SET_VRING_ADDR, VRING_ADDRESS.pack(*address))
    link.call(KICK, U64.pack(queue), (kick_fd,))
    return address
