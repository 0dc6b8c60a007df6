"""vhost-user's requests: which is answered, which needs what, which carries descriptors, and what we offer.

All of it from QEMU's docs/interop/vhost-user.rst, "the text".
"""

from pagetide.virtio.vhost_user.messages import FDS_MAX, Message, ProtocolFeature, RemoteProtocolError, Request

REQUESTS_WITH_REPLY = frozenset(
    {
        Request.GET_FEATURES,
        Request.GET_PROTOCOL_FEATURES,
        Request.GET_QUEUE_NUM,
        Request.GET_VRING_BASE,
        Request.GET_CONFIG,
        Request.GET_INFLIGHT_FD,
        Request.GET_MAX_MEM_SLOTS,
        Request.GET_STATUS,
    }
)
"""Requests with a reply of their own."""

NEEDED_FEATURE = {
    Request.GET_QUEUE_NUM: ProtocolFeature.MQ,
    Request.SET_BACKEND_REQ_FD: ProtocolFeature.BACKEND_REQ,
    Request.GET_CONFIG: ProtocolFeature.CONFIG,
    Request.SET_CONFIG: ProtocolFeature.CONFIG,
    Request.GET_INFLIGHT_FD: ProtocolFeature.INFLIGHT_SHMFD,
    Request.SET_INFLIGHT_FD: ProtocolFeature.INFLIGHT_SHMFD,
    Request.RESET_DEVICE: ProtocolFeature.RESET_DEVICE,
    Request.GET_MAX_MEM_SLOTS: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    Request.ADD_MEM_REG: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    Request.REM_MEM_REG: ProtocolFeature.CONFIGURE_MEM_SLOTS,
    Request.SET_STATUS: ProtocolFeature.STATUS,
    Request.GET_STATUS: ProtocolFeature.STATUS,
}
"""Which protocol feature makes a request legal (the text, at each message)."""

REQUESTS_WITH_FDS = frozenset(
    {
        Request.SET_MEM_TABLE,
        Request.SET_VRING_KICK,
        Request.SET_VRING_CALL,
        Request.SET_VRING_ERR,
        Request.SET_BACKEND_REQ_FD,
        Request.SET_INFLIGHT_FD,
        Request.ADD_MEM_REG,
        Request.REM_MEM_REG,
    }
)
"""Requests that may come with file descriptors."""

_WITHOUT_PAYLOAD = frozenset(
    {
        Request.GET_FEATURES,
        Request.SET_OWNER,
        Request.RESET_OWNER,
        Request.GET_PROTOCOL_FEATURES,
        Request.GET_QUEUE_NUM,
        Request.SET_BACKEND_REQ_FD,
        Request.RESET_DEVICE,
        Request.GET_MAX_MEM_SLOTS,
        Request.GET_STATUS,
    }
)

_NOT_OFFERED = frozenset({Request.SET_LOG_BASE, Request.SET_LOG_FD})

PROTOCOL_FEATURES = (
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.BACKEND_REQ
    | ProtocolFeature.CONFIG
    | ProtocolFeature.INFLIGHT_SHMFD
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
    | ProtocolFeature.STATUS
)
"""What the back-end offers."""

MEM_SLOTS_MAX = 509
"""Most memory regions of one guest: as many as libvhost-user and rust-vmm's back-ends take, and Linux's own vhost."""


def check_request(message: Message, negotiated: ProtocolFeature) -> Request:
    """What a message asks for, if a front-end may ask that now, and in this form.

    Args:
        message: a front-end's.
        negotiated: the protocol features that the front-end has accepted.

    Raises:
        RemoteProtocolError: it may not.
    """
    try:
        request = Request(message.request)
    except ValueError:
        raise RemoteProtocolError(f"request {message.request} is not known here") from None
    if request in _NOT_OFFERED:
        raise RemoteProtocolError(f"{request.name} belongs to a protocol feature that was not offered")
    needed = NEEDED_FEATURE.get(request)
    if needed is not None and not negotiated & needed:
        raise RemoteProtocolError(f"{request.name} without protocol feature {needed.name}")
    if message.is_reply:
        raise RemoteProtocolError(f"{request.name} is marked as a reply")
    if message.payload and request in _WITHOUT_PAYLOAD:
        raise RemoteProtocolError(f"{request.name} with a payload of {len(message.payload)} bytes")
    limit = FDS_MAX if request is Request.SET_MEM_TABLE else 1
    if len(message.fds) > (limit if request in REQUESTS_WITH_FDS else 0):
        raise RemoteProtocolError(f"{request.name} with {len(message.fds)} file descriptors")
    return request
