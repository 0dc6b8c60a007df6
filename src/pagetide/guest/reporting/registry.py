"""The designs by name. A new one is a file beside this and a line here."""

from collections.abc import Callable

from pagetide.guest.reporting.design import Design, ReportingSettings
from pagetide.guest.reporting.off import Off
from pagetide.guest.reporting.scan import Scan
from pagetide.guest.zone import Zone

DESIGNS: dict[str, Callable[[Zone, ReportingSettings], Design]] = {
    "off": Off,
    "scan": Scan,
}
