"""`pagetide why` and `pagetide top`: for who runs VMs."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pagetide.cli.app import command
from pagetide.cli.help_page import terminal_columns
from pagetide.machine.config_error import ConfigError

_WHY_EXAMPLES = """
Examples:

    pagetide why
    pagetide why --guest-script >guest.sh
    pagetide why 4711 --guest guest.txt
    pagetide why vm1 --guest guest.txt
    pagetide why /run/vm1.qmp --guest guest.txt --save vm1.json
    pagetide why /run/vm1.qmp --agent /run/vm1.qga --watch 5
    pagetide why --from vm1.json --html vm1.html

Exit status: 0 answered, whatever was found; 1 there is no such VM, it may not be looked at, or a file cannot be used;
2 bad arguments.
"""


@command(_WHY_EXAMPLES)
def why(
    vm: str | None = None,
    /,
    *,
    guest_script: Annotated[bool, Parameter(negative="")] = False,
    guest: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    control: Path | None = None,
    agent: Path | None = None,
    save: Path | None = None,
    html: Path | None = None,
    watch: float | None = None,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Say why a running VM's memory does not come back, and what to do. It only looks.

    What the host holds for the VM is set against what its guest says it needs, each byte in one class; what keeps much
    of it from coming back is said below, with what was read where, the remedy, what that should return and its cost.

    It works on any QEMU, with its own balloon or ours, and on User-Mode Linux. Without the guest's text only what the
    host sees is known.

    Args:
        vm: A process id, the path of a QEMU's QMP socket or of a Firecracker's API socket, the name of a guest of a
            running `pagetide serve`, or of a domain of libvirt (LIBVIRT_DEFAULT_URI names the connection). Without one,
            the VMs on this host are listed with what each holds.
        guest_script: Print the shell script that is to be run in the guest, as root if that can be; it only reads, and
            any POSIX shell will do.
        guest: A file with what that script wrote; - is standard input.
        agent: The socket of the guest's QEMU guest agent, which then runs that script in it.
        control: The control socket of `pagetide serve`. [default: pagetide/control.sock in
            XDG_RUNTIME_DIR, or in /tmp/pagetide-UID; under the systemd unit it is /run/pagetide/control.sock]
        save: Write all that was read to this file, without names, addresses or contents of memory.
        html: Write the answer to this file, as a page that needs nothing else.
        watch: Look again every so many seconds, and show what changes, until Ctrl-C.
        from_: Answer from such a file, here or elsewhere.
        json: Print JSON.
    """
    from pagetide.commands.why import Output, Sources, print_guest_script
    from pagetide.commands.why import why as answer

    sources = Sources(vm, guest, agent, control, from_)
    output = Output(save, html, json, watch, terminal_columns())
    if guest_script:
        if any(sources) or any(output[:-1]):
            raise ConfigError("--guest-script only prints the script: it goes with nothing else")
        return print_guest_script()
    return answer(sources, output)


_TOP_EXAMPLES = """
Examples:

    pagetide top
    pagetide top --sort 'returned/s' --interval 5
    pagetide top --json

Exit status: 0 when it was ended, or has printed; 1 if its output cannot be written; 2 for bad arguments.
"""


@command(_TOP_EXAMPLES)
def top(
    *,
    control: Path | None = None,
    once: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    interval: float = 1.0,
    sort: str = "held",
    daemon_only: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show all VMs of this host: what each has, what is held of it, what comes back. It only looks.

    Guests of a running `pagetide serve` are told by it; of other VMs, on QEMU's own balloon say, there is what the
    kernel knows. Arrows choose the column to sort by and a VM, r turns the order, Enter shows a VM's curves and its
    page map, each block of 2 MiB; Escape leads back, q ends.

    Args:
        control: The control socket of `pagetide serve`. [default: pagetide/control.sock in
            XDG_RUNTIME_DIR, or in /tmp/pagetide-UID; under the systemd unit it is /run/pagetide/control.sock]
        once: Print the table once, as without a terminal.
        json: Print once, as JSON, in bytes.
        interval: Seconds from one look to the next.
        sort: The column to sort by at first, by its title.
        daemon_only: Leave out VMs that are not guests of `pagetide serve`.
    """
    from pagetide.commands.top import top_command

    return top_command(control, once=once, json=json, interval_s=interval, sort=sort, daemon_only=daemon_only)
