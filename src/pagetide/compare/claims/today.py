"""What of a configuration can be set in QEMU, libvirt and Linux as they are: by which option, from which release on.

Free page reporting: mm/page_reporting.c, since Linux 5.7; its order is a parameter since 5.14. QEMU's
`free-page-reporting` is there since 5.1, libvirt's attribute since 6.9.
"""

from collections.abc import Mapping
from typing import Any

from pagetide.compare.claims.verdicts import Setting
from pagetide.compare.results.conditions import Configuration
from pagetide.machine.config import RunConfig

_DELAY_S = 2.0
_ORDER_FILE = "/sys/module/page_reporting/parameters/page_reporting_order"

_OFF = (
    Setting("QEMU", "-device virtio-balloon-pci,free-page-reporting=off", "its default"),
    Setting("libvirt", "<memballoon model='virtio' freePageReporting='off'/>", "its default"),
)
_BALLOON = (
    Setting("QEMU", "-device virtio-balloon-pci,deflate-on-oom=on", "and from time to time the QMP command balloon"),
    Setting("libvirt", "<memballoon model='virtio' autodeflate='on'/>", "and from time to time virsh setmem"),
    Setting("guest", "CONFIG_VIRTIO_BALLOON", "in every release"),
)
_SCAN = (
    Setting("QEMU", "-device virtio-balloon-pci,free-page-reporting=on", "5.1 and newer"),
    Setting("libvirt", "<memballoon model='virtio' freePageReporting='on'/>", "6.9 and newer"),
    Setting(
        "guest",
        "CONFIG_PAGE_REPORTING",
        "Linux 5.7 and newer; before 2026 its delay of 2 s and 32 blocks a report are fixed",
    ),
)


def is_settable(configuration: Configuration) -> bool:
    """Whether Linux can be set so."""
    settings = configuration.settings
    if configuration.design == "scan":
        return not _lacks(settings)
    return configuration.design in ("off", "balloon")


def settings_of(configuration: Configuration) -> tuple[Setting, ...]:
    """What is to be set where; for a configuration that can be set."""
    assert is_settable(configuration)
    if configuration.design != "scan":
        return _OFF if configuration.design == "off" else _BALLOON
    order = configuration.settings["order"]
    if order == RunConfig().order:
        return _SCAN
    return (
        *_SCAN,
        Setting(
            "guest",
            f"echo {order} >{_ORDER_FILE}",
            "Linux 5.14 and newer, once the balloon's driver is loaded; what is free by then is reported after the "
            "next free of such a block",
        ),
        Setting("guest", f"page_reporting.page_reporting_order={order}", "on the command line, newer than 6.1 only"),
    )


def what_is_missing(configuration: Configuration) -> str:
    """What Linux does not have of a configuration that cannot be set, as a sentence without its full stop."""
    if configuration.design != "scan":
        return f"the design {configuration.design} is not in Linux"
    return f"Linux's reporting has no option for {' and '.join(_lacks(configuration.settings))}"


def _lacks(settings: Mapping[str, Any]) -> list[str]:
    """What of a scan's settings Linux's reporting cannot be told."""
    asked = (
        (settings["cool_s"], "reporting only what has been free for some time"),
        (settings["oom"] not in ("none", "wait"), "bounding what is out when memory runs out"),
        (settings["wake"] not in (None, "merge"), f"being woken by {settings['wake']}"),
        (settings["capacity"] != RunConfig().capacity, "another number of blocks a report"),
        (settings["delay_s"] not in (None, _DELAY_S), "another delay than 2 s"),
    )
    return [what for is_asked, what in asked if is_asked]
