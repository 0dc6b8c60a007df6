"""A balloon's configuration space: what its host wants, what its driver says, and whether that is known."""

from pagetide.virtio.balloon import (
    CONFIG_ACTUAL,
    CONFIG_BYTES,
    CONFIG_FREE_PAGE_HINT_CMD_ID,
    CONFIG_NUM_PAGES,
    CONFIG_POISON_VAL,
    Config,
)

NUM_PAGES_MAX = 0xFFFF_FFFF
"""The most pages that a host can want in a balloon."""

_FIELD_BYTES = 4
_POISON_VAL = slice(CONFIG_POISON_VAL, CONFIG_POISON_VAL + _FIELD_BYTES)


class DeviceConfig:
    """The configuration space of one device (virtio 1.2, 5.5.4).

    Attributes:
        data: as the driver reads it, little-endian; what the driver writes goes through `write`.
        poison_known: whether `poison_val` is what the driver filled pages with, if it ever wrote it.
    """

    data: bytearray
    poison_known: bool

    def __init__(self) -> None:
        """Start with zeros, as a driver finds it that nothing served before."""
        self.data = bytearray(Config().encode())
        self.poison_known = True
        self._poison_told = False

    @property
    def poison_told(self) -> bool:
        """Whether the driver wrote `poison_val`."""
        return self._poison_told

    def restore(self, data: bytes, *, known: bool, told: bool) -> None:
        """Stand as another one did; the driver need not be told."""
        self.data[:] = data
        self.poison_known, self._poison_told = known, told

    @property
    def fields(self) -> Config:
        """What stands in it."""
        return Config.decode(bytes(self.data))

    @property
    def poison_val(self) -> int | None:
        """What the driver fills free pages with; None if that is not known."""
        return self.fields.poison_val if self.poison_known else None

    def set_num_pages(self, num_pages: int) -> None:
        """Want this many 4 KiB pages in the balloon; the driver is to be told of a changed configuration.

        Raises:
            ValueError: it is not from 0 to 2^32 - 1.
        """
        if not 0 <= num_pages <= NUM_PAGES_MAX:
            raise ValueError(f"a balloon has from 0 to 2^32 - 1 pages, not {num_pages}")
        self._set(CONFIG_NUM_PAGES, num_pages)

    def set_cmd_id(self, cmd_id: int) -> None:
        """Name the round of free page hints that is wanted; the driver is to be told of a changed configuration."""
        self._set(CONFIG_FREE_PAGE_HINT_CMD_ID, cmd_id)

    def write(self, offset: int, data: bytes) -> None:
        """Take a driver's write; only `actual` and `poison_val` are its to change.

        A frontend may write all of the space at once (virtio 1.2, 5.5.4): QEMU reads it, changes the field that the
        driver wrote, and writes it back. So a `poison_val` that stands there already, amid others, tells nothing.
        """
        poison_before = self.data[_POISON_VAL]
        assert offset + len(data) <= len(self.data) == CONFIG_BYTES
        for place, value in enumerate(data, offset):
            if place // _FIELD_BYTES * _FIELD_BYTES in {CONFIG_ACTUAL, CONFIG_POISON_VAL}:
                self.data[place] = value
        if offset == CONFIG_POISON_VAL or self.data[_POISON_VAL] != poison_before:
            self._poison_told = self.poison_known = True

    def served_before(self) -> None:
        """The driver was served by another device: what it told only that one is not known, until `take_over`."""
        self.poison_known = self._poison_told

    def take_over(self, actual: int, poison_val: int | None) -> None:
        """Learn what a predecessor was told, if it knew; what the driver has told this device already stands."""
        if self.fields.actual == 0:
            self._set(CONFIG_ACTUAL, actual)
        if poison_val is not None and not self._poison_told:
            self._set(CONFIG_POISON_VAL, poison_val)
            self._poison_told = self.poison_known = True

    def reset(self) -> None:
        """Forget what the driver wrote (virtio 1.2, 2.4); what the host wants stands."""
        self._set(CONFIG_ACTUAL, 0)
        self._set(CONFIG_POISON_VAL, 0)
        self._poison_told = False
        self.poison_known = True

    def begin_anew(self) -> None:
        """The driver is another one, which has no pages in the balloon; what it wrote to `poison_val` stands."""
        self._set(CONFIG_ACTUAL, 0)

    def _set(self, offset: int, value: int) -> None:
        self.data[offset : offset + _FIELD_BYTES] = value.to_bytes(_FIELD_BYTES, "little")
