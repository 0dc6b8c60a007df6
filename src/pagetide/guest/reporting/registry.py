"""The designs by name. A new one is a file beside this and a line here."""

from collections.abc import Callable

from pagetide.guest.reporting.balloon import Balloon
from pagetide.guest.reporting.cursor import Cursor
from pagetide.guest.reporting.design import Design, ReportingSettings
from pagetide.guest.reporting.hybrid import Hybrid
from pagetide.guest.reporting.notify import Notify
from pagetide.guest.reporting.notify_array import NotifyArray
from pagetide.guest.reporting.off import Off
from pagetide.guest.reporting.scan import Scan
from pagetide.guest.reporting.scan_restart import ScanRestart
from pagetide.guest.reporting.shared import Shared
from pagetide.guest.reporting.sync import Sync
from pagetide.guest.zone import Zone

DESIGNS: dict[str, Callable[[Zone, ReportingSettings], Design]] = {
    "off": Off,
    "sync": Sync,
    "notify": Notify,
    "notify-array": NotifyArray,
    "hybrid": Hybrid,
    "scan": Scan,
    "scan-restart": ScanRestart,
    "cursor": Cursor,
    "shared": Shared,
    "balloon": Balloon,
}
