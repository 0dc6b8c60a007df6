"""The balloon's constants: what crosses the wire."""

import struct

import pytest

from pagetide.virtio.balloon import CONFIG_ACTUAL, CONFIG_BYTES, STAT, Config, Feature, Queue, Stat, queues

pytestmark = pytest.mark.jit  # no kernel is called


@pytest.mark.parametrize(
    ("features", "reporting"),
    [
        (Feature.REPORTING, 2),
        (Feature.REPORTING | Feature.STATS_VQ, 3),
        (Feature.REPORTING | Feature.FREE_PAGE_HINT, 3),
        (Feature.REPORTING | Feature.STATS_VQ | Feature.FREE_PAGE_HINT | Feature.VERSION_1, 4),
    ],
)
def test_the_reporting_queue_moves_down_for_queues_that_do_not_exist(features: Feature, reporting: int) -> None:
    """Queue numbers are dense over what was negotiated, as Linux guests use them."""
    assert queues(features).index(Queue.REPORTING) == reporting


def test_inflate_and_deflate_always_exist() -> None:
    """A device without features has two queues; unknown bits change nothing."""
    assert queues(0) == queues(1 << 60) == (Queue.INFLATE, Queue.DEFLATE)


def test_the_configuration_is_four_little_endian_words() -> None:
    """Fields are at offsets 0, 4, 8 and 12, and survive a round trip."""
    config = Config(num_pages=1, actual=0xAABBCCDD, free_page_hint_cmd_id=2, poison_val=0xFFFFFFFF)
    space = config.encode()
    assert len(space) == CONFIG_BYTES == 16
    assert space[CONFIG_ACTUAL : CONFIG_ACTUAL + 4] == bytes.fromhex("ddccbbaa")
    assert Config.decode(space) == config
    with pytest.raises(struct.error):
        Config.decode(space[:15])
    with pytest.raises(struct.error):
        Config(actual=1 << 32).encode()


def test_a_statistic_is_ten_packed_bytes() -> None:
    """A 16-bit tag and a 64-bit value with no padding between."""
    assert STAT.pack(Stat.CACHES, 1 << 63) == bytes.fromhex("0700 0000000000000080")
    assert STAT.size == 10


def test_the_numbers_are_those_of_linux() -> None:
    """Feature bits as in include/uapi/linux/virtio_balloon.h, virtio_ring.h and virtio_config.h; one is a draft's."""
    bits = {feature.name: feature.bit_length() - 1 for feature in Feature}
    assert bits == {
        "MUST_TELL_HOST": 0,
        "STATS_VQ": 1,
        "DEFLATE_ON_OOM": 2,
        "FREE_PAGE_HINT": 3,
        "PAGE_POISON": 4,
        "REPORTING": 5,
        "DEVICE_INIT_REPORTED": 6,
        "INDIRECT_DESC": 28,
        "EVENT_IDX": 29,
        "VERSION_1": 32,
    }


def test_unknown_feature_bits_are_kept() -> None:
    """A peer's bits that we have no name for are not lost when they pass through."""
    assert int(Feature((1 << 38) | Feature.REPORTING)) == (1 << 38) | 32
