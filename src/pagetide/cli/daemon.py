"""`pagetide serve` and `pagetide ctl`: the balloon device of real guests, and its remote control."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pagetide.cli.app import command

_SERVE_EXAMPLES = """
Examples:

    pagetide serve --socket /run/vm1.sock
    pagetide serve --socket vm1.sock --socket vm2.sock --stats-interval 5 --no-free-page-hint
    pagetide serve --socket-dir /run/pagetide-guests
    pagetide serve --take-over

QEMU's generic vhost-user device does not survive the end of its daemon: its guest has no balloon until the VM is
started anew, and QEMU may end at the guest's next reboot. So replace a running daemon with --take-over, or run it under
systemd as deploy/pagetide.service does: then a restart, a crash or a kill loses no guest.

Exit status: 0 after SIGTERM or Ctrl-C, when what guests had asked for is answered; 1 if a socket cannot be had; 2 for
bad arguments.
"""


@command(_SERVE_EXAMPLES)
def serve(
    *,
    socket: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    socket_dir: Path | None = None,
    control: Path | None = None,
    verify: float = 1.0,
    stats_interval: float = 0.0,
    take_over: Annotated[bool, Parameter(negative="")] = False,
    stats: bool = True,
    deflate_on_oom: bool = True,
    free_page_hint: bool = True,
    page_poison: bool = True,
    reporting: bool = True,
    device_init: bool = False,
    metrics: str | None = None,
    metrics_any: Annotated[bool, Parameter(negative="")] = False,
    web: str | None = None,
    web_any: Annotated[bool, Parameter(negative="")] = False,
    web_control: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Be the balloon device of real guests, each attached to a vhost-user socket.

    QEMU 10.2 and newer attach a guest with vhost-user-test-device-pci, which QEMU calls a test device; it has one MSI-X
    vector and no INTx, so a guest that needs INTx or more vectors (s390x) cannot use it.

    Args:
        socket: Where guests connect; may be given more than once. A guest is called after its socket.
        socket_dir: Or a folder, in which `pagetide ctl add NAME` makes NAME.sock. Sockets that an earlier daemon left
            there are listened at again.
        control: Where `pagetide ctl` asks. [default: pagetide/control.sock in
            XDG_RUNTIME_DIR, or in /tmp/pagetide-UID; under the systemd unit it is /run/pagetide/control.sock]
        verify: Share of the reports of which the kernel is asked what was there and what is gone: of the others nobody
            knows what they returned.
        stats_interval: Seconds between requests for the guests' memory statistics; 0 for none.
        take_over: Take all guests and sockets from the daemon that runs at this control socket, and have it end. No
            guest notices. Its other options are not taken over: give the same; the log names those that differ.
        stats: Offer the statistics queue.
        deflate_on_oom: Let a guest take pages out of its balloon when it runs out of memory.
        free_page_hint: Offer free page hinting.
        page_poison: Offer to be told of the guest's page poison.
        reporting: Offer free page reporting.
        device_init: Offer VIRTIO_BALLOON_F_DEVICE_INIT_REPORTED, a draft that may still change: a guest that knows it
            need not zero memory that it reported and that was verified gone.
        metrics: Answer Prometheus' scrapes at this address, such as 127.0.0.1:9464, from a process of its own.
        metrics_any: Let that be an address that other machines reach. Whoever does may read the metrics.
        web: Show a page of the guests at this address, such as 127.0.0.1:8080, from a process of its own. It needs the
            extra web (Starlette, uvicorn).
        web_any: Let that be an address that other machines reach. Whoever does may read the page.
        web_control: Let who opens the page with the token that is logged at the start set targets, pause and inhibit.
    """
    from pagetide.commands.daemon.endpoints import EndpointOptions
    from pagetide.commands.daemon.serve import serve_command

    offered = {
        "STATS_VQ": stats, "DEFLATE_ON_OOM": deflate_on_oom, "FREE_PAGE_HINT": free_page_hint,
        "PAGE_POISON": page_poison, "REPORTING": reporting,
    }  # fmt: skip
    without = frozenset(name for name, wanted in offered.items() if not wanted)
    return serve_command(
        socket,
        socket_dir,
        control,
        verify_share=verify,
        stats_interval_s=stats_interval,
        without=without,
        take_over=take_over,
        device_init=device_init,
        endpoints=EndpointOptions(metrics, metrics_any, web, web_any, web_control),
    )


_CTL_EXAMPLES = """
Examples:

    pagetide ctl list
    pagetide ctl set vm1 target=512MiB
    pagetide ctl pause vm1
    pagetide ctl add vm3

Exit status: 0 done; 1 the daemon says no, or none answers; 2 bad arguments.
"""


@command(_CTL_EXAMPLES)
def ctl(
    command: str,
    guest: str | None = None,
    /,
    *settings: str,
    control: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    force: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Ask a running `pagetide serve`, or tell it what to do.

    show tells how much of a guest's memory the host holds in RAM and how much in swap, or why the kernel does not tell
    them apart. What a guest gives back is freed in both.

    Args:
        command: list; show, set, pause, resume, inhibit, uninhibit or hint, with a guest; add or remove, with the
            name of a guest whose socket is to be made or removed in the daemon's --socket-dir; check, whether this
            release goes on with all of the daemon's guests if it takes its place.
        guest: Its name, as list shows it. What is wanted of a guest can be said before it is attached.
        settings: For set: target=SIZE, the memory that the guest is to make do with; target=none, all that it has.
        control: The daemon's control socket. [default: pagetide/control.sock in
            XDG_RUNTIME_DIR, or in /tmp/pagetide-UID; under the systemd unit it is /run/pagetide/control.sock]
        json: Print JSON.
        force: For set: also if that is less than the guest uses by its own statistics.
    """
    from pagetide.commands.daemon.ctl import ctl_command

    return ctl_command(command, guest, settings, control, json=json, force=force)
