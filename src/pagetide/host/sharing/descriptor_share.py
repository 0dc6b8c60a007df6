"""How many of this process's file descriptors the guests of one socket may hold.

A front-end gives descriptors with its messages, and connects as often as it likes. The protocol bounds what one
connection holds besides its memory regions; so connections and regions are what is counted, each socket's for itself.
"""

import resource
from typing import NamedTuple

_PER_CONNECTION = 32
"""The connection, three a queue, the channel for requests, the in-flight memory, four of what is kept for a
successor, and those of a message that comes."""

_CONNECTIONS_SHARE = 0.5
_REGIONS_SHARE = 0.25


class DescriptorShare(NamedTuple):
    """One socket's.

    Attributes:
        connections: how many there may be at once.
        regions: how many memory regions all of them share.
    """

    connections: int
    regions: int


def descriptor_share() -> DescriptorShare:
    """What is a quarter less than all that this process may have: the rest is for other sockets and for control."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        most = 1 << 30
    return DescriptorShare(max(1, int(most * _CONNECTIONS_SHARE) // _PER_CONNECTION), int(most * _REGIONS_SHARE))
