"""The designs by name. A new one is a file beside this and a line here.

A design's file is imported when one is made, so that who needs but the names, as settings and `--help` do, loads no
compiler.
"""

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from pagetide.guest.reporting.fits import misfit
from pagetide.guest.reporting.settings import ReportingSettings

if TYPE_CHECKING:
    from pagetide.guest.allocator.zone import Zone
    from pagetide.guest.reporting.design import Design


class Place(NamedTuple):
    """Where a design is, and what `--help` says of it.

    Attributes:
        file: the module beside this one.
        kind: its class, which takes a zone and settings.
        about: a few words.
    """

    file: str
    kind: str
    about: str

    @property
    def module(self) -> str:
        """The module's full name."""
        return f"{__name__.rpartition('.')[0]}.designs.{self.file}"


DESIGNS = {
    "off": Place("off", "Off", "nothing is reported"),
    "sync": Place("sync", "Sync", "who frees reports, and waits for the host"),
    "notify": Place("notify", "Notify", "a bitmap of what was freed"),
    "notify-array": Place("notify_array", "NotifyArray", "bounded arrays, which drop what does not fit"),
    "hybrid": Place("hybrid", "Hybrid", "such arrays, and a scan when too much was dropped"),
    "scan": Place("scan", "Scan", "Linux's walk over the free lists"),
    "scan-restart": Place("scan_restart", "ScanRestart", "always from their heads"),
    "cursor": Place("cursor", "Cursor", "by position, what is unreported only"),
    "pool": Place("pool", "Pool", "keeps what is about to be used, reports the rest when it pays"),
    "shared": Place("shared", "Shared", "the host takes it by itself"),
    "balloon": Place("balloon", "Balloon", "the host sets a target"),
}


def make_design(name: str, zone: "Zone", settings: ReportingSettings) -> "Design":
    """Make a design for a zone; nothing happens before its `start`.

    Raises:
        ValueError: a setting does not fit it.
    """
    sentence = misfit(name, settings)
    if sentence is not None:
        raise ValueError(sentence)
    place = DESIGNS[name]
    design: Design = getattr(import_module(place.module), place.kind)(zone, settings)
    return design
