"""What a back-end knows of a connection, as plain values: for a successor that goes on with the same connection.

A descriptor is told as a number that stands for it wherever the state is kept, -1 for none.
"""

import msgspec


class VringState(msgspec.Struct, frozen=True, array_like=True):
    """One queue, as `Vrings` knows it; `address` is a VringAddress's fields, empty for none."""

    size: int
    address: tuple[int, ...]
    base: int
    base_is_given: bool
    enabled: bool
    started: bool
    was_started: bool
    kick: int
    call: int
    err: int


class BackendState(msgspec.Struct, frozen=True, array_like=True):
    """A connection, as `VhostUserBackend` knows it, but for the configuration space, which is the device's."""

    offered: int
    features: int
    protocol_features: int
    status: int
    channel: int
    is_owned: bool
    vrings: list[VringState]
