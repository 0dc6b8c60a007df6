"""vhost-user messages as bytes: what is written is read back, and what is wrong is refused."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pagetide.virtio.vhost_user.messages import (
    FDS_MAX,
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    LocalProtocolError,
    Message,
    MessageReader,
    RemoteProtocolError,
    encode,
)
from pagetide.virtio.vhost_user.payloads import (
    VRING_ADDRESS,
    ConfigSpace,
    Inflight,
    MemoryRegion,
    VringAddress,
    decode_config,
    decode_inflight,
    decode_mem_table,
    decode_single_region,
    decode_u64,
    decode_vring_address,
    decode_vring_state,
    encode_config,
    encode_inflight,
    encode_mem_table,
    encode_single_region,
)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
regions = st.builds(MemoryRegion, u64, u64, u64, u64)
messages = st.builds(
    Message,
    u32,
    st.sampled_from([0, 4, 8, 12]),
    st.binary(max_size=100),
    st.lists(st.integers(3, 99), max_size=FDS_MAX).map(tuple),
)


@given(st.lists(messages, max_size=5), st.integers(1, 64))
@settings(deadline=None)
def test_messages_come_out_as_they_went_in(sent: list[Message], piece_bytes: int) -> None:
    """Whatever pieces a stream is cut into, the same messages come out, each with its own descriptors."""
    reader, got = MessageReader(), []
    for message in sent:
        data, fds = encode(message), message.fds
        while data:
            piece = data[: min(piece_bytes, reader.wanted_bytes)]
            reader.receive(piece, fds)
            data, fds = data[len(piece) :], ()
            if (whole := reader.next_message()) is not None:
                got.append(whole)
                assert data == b""
    assert got == sent
    assert reader.take_fds() == []


@given(st.lists(regions, max_size=FDS_MAX), st.integers(0, 300))
def test_memory_tables_may_be_padded(table: list[MemoryRegion], padding_bytes: int) -> None:
    """A table comes back whatever follows it: UML 6.12 sends its whole union."""
    assert decode_mem_table(encode_mem_table(table) + bytes(padding_bytes)) == tuple(table)


def test_umls_table_of_72_bytes_has_one_region() -> None:
    """A payload of 72 bytes with one region is taken, although 8 + 32 would do."""
    region = MemoryRegion(0, 1 << 30, 0, 0)
    assert decode_mem_table(encode_mem_table([region]).ljust(72, b"\xff")) == (region,)


@given(regions, st.builds(Inflight, u64, u64, st.integers(0, 65535), st.integers(0, 65535)))
def test_regions_and_inflight_descriptions_come_back(region: MemoryRegion, inflight: Inflight) -> None:
    """What is encoded is decoded."""
    assert decode_single_region(encode_single_region(region)) == region
    assert decode_inflight(encode_inflight(inflight)) == inflight


@given(st.integers(0, 256), u32, st.binary(max_size=256))
def test_configuration_accesses_come_back(offset: int, flags: int, data: bytes) -> None:
    """What is encoded is decoded."""
    config = ConfigSpace(offset, len(data), flags, data)
    assert decode_config(encode_config(config)) == config


@given(st.builds(VringAddress, u32, u32, u64, u64, u64, u64))
def test_queue_addresses_come_back(address: VringAddress) -> None:
    """What is encoded is decoded."""
    assert decode_vring_address(VRING_ADDRESS.pack(*address)) == address


@pytest.mark.parametrize(
    ("decode", "payload"),
    [
        (decode_u64, bytes(7)),
        (decode_u64, bytes(9)),
        (decode_vring_state, bytes(4)),
        (decode_vring_address, bytes(39)),
        (decode_mem_table, bytes(7)),
        (decode_mem_table, b"\x01" + bytes(38)),
        (decode_mem_table, b"\x09" + bytes(7 + 9 * 32)),
        (decode_mem_table, b"\xff" * 72),
        (decode_single_region, bytes(39)),
        (decode_config, bytes(11)),
        (decode_config, b"\0\0\0\0\5" + bytes(7) + bytes(4)),
        (decode_config, b"\0\0\0\0\1\1" + bytes(6) + bytes(257)),
        (decode_inflight, bytes(25)),
        (decode_inflight, bytes(19)),
    ],
)
def test_a_payload_of_the_wrong_size_is_refused(decode: object, payload: bytes) -> None:
    """A payload that is too short, too long or contradicts itself is the peer's error."""
    assert callable(decode)
    with pytest.raises(RemoteProtocolError):
        decode(payload)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [((1, 0, 0), "version 0"), ((1, 2, 0), "version 2"), ((1, 1, PAYLOAD_BYTES_MAX + 1), "payload of 4097")],
)
def test_a_header_that_no_peer_may_send_is_refused(header: tuple[int, int, int], sentence: str) -> None:
    """Another version, or a payload beyond all that the text defines, is the peer's error before any payload comes."""
    reader = MessageReader()
    reader.receive(b"".join(number.to_bytes(4, "little") for number in header))
    with pytest.raises(RemoteProtocolError, match=sentence):
        reader.next_message()


def test_too_many_descriptors_are_refused_and_not_lost() -> None:
    """More descriptors than any message may have is an error, and they can still be closed."""
    reader = MessageReader()
    reader.receive(b"\1", list(range(FDS_MAX + 1)))
    with pytest.raises(RemoteProtocolError, match="9 file descriptors"):
        reader.next_message()
    assert reader.take_fds() == list(range(FDS_MAX + 1))


def test_we_send_no_message_that_a_peer_need_not_take() -> None:
    """Too large a payload or too many descriptors is our own error."""
    for message in (Message(1, payload=bytes(PAYLOAD_BYTES_MAX + 1)), Message(1, fds=tuple(range(FDS_MAX + 1)))):
        with pytest.raises(LocalProtocolError):
            encode(message)


def test_a_reader_asks_for_a_header_and_then_for_its_payload() -> None:
    """It never wants bytes of the next message, whose descriptors would come with them."""
    reader = MessageReader()
    assert reader.wanted_bytes == HEADER_BYTES
    reader.receive(encode(Message(1, payload=bytes(20)))[:HEADER_BYTES])
    assert reader.next_message() is None
    assert reader.wanted_bytes == 20
