"""The commands. Only parsing: nothing heavy is imported before the arguments are known to be good."""

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter, Token

from pagetide.lab.boot_command import BootChoice, make_boot_config
from pagetide.lab.boot_command import boot as boot_once
from pagetide.lab.config_file import make_config, read_file
from pagetide.lab.ctl_command import ctl_command
from pagetide.lab.run_command import STATUS_INTERRUPTED, STATUS_USAGE, run_simulated
from pagetide.lab.run_command import run as run_once
from pagetide.lab.serve_command import serve_command
from pagetide.machine.config import ConfigError

app = App(
    name="pagetide",
    help="Gives a guest's free memory back to its host, and shows that it did.",
    version=lambda: importlib.metadata.version("pagetide"),
    version_flags=["--version"],
    help_formatter="plain",
    help_on_error=False,
    result_action="return_value",
)


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """The framework would round 1.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from None


_GUEST = Group("Guest", sort_key=1)
_REPORTING = Group("Reporting", sort_key=2)
_OUTPUT = Group("Settings and output", sort_key=3)

_USAGE_EXAMPLES = """
Examples:

    pagetide run
    pagetide run --ram 8GiB --delay 0.1 --json run.json
    pagetide run --pace linux --bursts 1
    pagetide run --workload churn --design cursor --duration 10
    pagetide run --bursts 1 --hold 1 --fault stop@0.9:10
    pagetide run --machine simulated --ram 1TiB --bursts 1

Exit status: 0 all is well; 1 a wrong stamp, a discard that the kernel contradicts, a process that died, or no memory;
2 bad arguments; 130 Ctrl-C.
"""


@app.command(help_epilogue=_USAGE_EXAMPLES)
def run(
    *,
    workload: Annotated[str | None, Parameter(group=_GUEST)] = None,
    ram: Annotated[str | None, Parameter(group=_GUEST)] = None,
    vcpus: Annotated[int | None, Parameter(converter=_whole, group=_GUEST)] = None,
    bursts: Annotated[int | None, Parameter(converter=_whole, group=_GUEST)] = None,
    eat_share: Annotated[float | None, Parameter(group=_GUEST)] = None,
    hold: Annotated[float | None, Parameter(group=_GUEST)] = None,
    rest: Annotated[float | None, Parameter(group=_GUEST)] = None,
    duration: Annotated[float | None, Parameter(group=_GUEST)] = None,
    rate: Annotated[float | None, Parameter(group=_GUEST)] = None,
    mix: Annotated[str | None, Parameter(group=_GUEST)] = None,
    stream: Annotated[str | None, Parameter(group=_GUEST)] = None,
    backing: Annotated[str | None, Parameter(group=_GUEST)] = None,
    seed: Annotated[int | None, Parameter(converter=_whole, group=_GUEST)] = None,
    design: Annotated[str | None, Parameter(group=_REPORTING)] = None,
    order: Annotated[int | None, Parameter(converter=_whole, group=_REPORTING)] = None,
    delay: Annotated[float | None, Parameter(group=_REPORTING)] = None,
    capacity: Annotated[int | None, Parameter(converter=_whole, group=_REPORTING)] = None,
    pace: Annotated[str | None, Parameter(group=_REPORTING)] = None,
    cool: Annotated[float | None, Parameter(group=_REPORTING)] = None,
    wake: Annotated[str | None, Parameter(group=_REPORTING)] = None,
    wake_blocks: Annotated[int | None, Parameter(converter=_whole, group=_REPORTING)] = None,
    oom: Annotated[str | None, Parameter(group=_REPORTING)] = None,
    in_flight: Annotated[str | None, Parameter(group=_REPORTING)] = None,
    hints: Annotated[int | None, Parameter(converter=_whole, group=_REPORTING)] = None,
    verify: Annotated[float | None, Parameter(group=_REPORTING)] = None,
    device: Annotated[str | None, Parameter(group=_REPORTING)] = None,
    fault: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, group=_REPORTING)] = (),
    save_stream: Annotated[Path | None, Parameter(group=_OUTPUT)] = None,
    machine: Annotated[Literal["live", "simulated"], Parameter(group=_OUTPUT)] = "live",
    costs: Annotated[Path | None, Parameter(group=_OUTPUT)] = None,
    config: Annotated[Path | None, Parameter(group=_OUTPUT)] = None,
    json: Annotated[str | None, Parameter(allow_leading_hyphen=True, group=_OUTPUT)] = None,
) -> int:
    """Run a guest and its host on real memory, or simulated, and show what each of them holds.

    The guest eats memory, touches every page, holds it and frees it. It reports what is free through a virtqueue; the
    host discards that, reads back that it is gone, and acknowledges.

    Faults, at T seconds on the workload's clock, for D seconds: stop@T:D stops the host's process; slow@T:D:FACTOR
    makes it that many times slower; off@T:D switches reporting off; ring-full@T:D leaves no room in the queue. For the
    whole run: ring=ENTRIES gives the queue so few; mmlock has a thread hold the host's mm lock; mmlock-split does, with
    the guest's RAM in two VMAs. The clock stands still while a burst eats or frees: with --hold 1 it shows 1 when the
    first free begins.

    Args:
        workload: What the guest does: burst, eat and free as fast as it can; web, serve small requests; database, fill
            memory with cache and keep it; churn, allocate and free all the time; small, eat close to the limit; day,
            bursts at random hours over a web server. [default: burst]
        ram: Guest memory, such as 512MiB or 8G. [default: 2GiB; 512MiB for small]
        vcpus: Guest threads that allocate and free. [default: 2]
        bursts: How many times the guest eats and frees, for burst and day. [default: 3; 4 for day]
        eat_share: Share of its memory that it eats each time; otherwise, that it holds at most, or for churn on
            average. [default: 0.75; web 0.3, database 0.8, churn and day 0.5, small 0.975]
        hold: Seconds for which a burst keeps what it ate. [default: 1]
        rest: Seconds between one burst and the next, for burst. [default: until the design is done, and 0.5]
        duration: Seconds for which the others go on; day squeezes its 24 hours into them. [default: 30]
        rate: How often in a second: requests for web and day, allocations for churn, waves for small. [default: 1000;
            churn 20000, day 200, small 4]
        mix: Shares of the memory by order of the blocks. [default: 9=0.5,4=0.125,2=0.125,0=0.25; web and database
            their own]
        stream: Run the operations of this Parquet file instead, as --save-stream writes it.
        backing: memfd (4 KiB pages) or hugetmpfs (2 MiB pages; needs root). [default: memfd]
        seed: Drives every random choice. [default: 1]
        design: How free memory is returned: scan (Linux's), scan-restart, cursor, notify, notify-array, hybrid, sync;
            shared: the host takes it by itself; balloon, whose target the host sets; or off. [default: scan]
        order: The smallest block that is reported is 2^ORDER pages of 4 KiB. [default: 9]
        delay: Seconds from a free until reporting begins. [default: 2 for designs that scan, otherwise 0;
            0 for the workload small]
        capacity: Blocks in one report, and so out of the allocator, at most. [default: 32]
        pace: drain reports until nothing is left; linux a sixteenth of each list every DELAY. [default: drain]
        cool: Seconds for which a block must have been free before it is reported. [default: 0]
        wake: What makes the worker run: merge, a free block of that order; threshold, WAKE_BLOCKS of them; timer, only
            the clock. [default: threshold for designs that are notified, otherwise merge]
        wake_blocks: Unreported blocks that threshold waits for. [default: 16]
        oom: What keeps blocks that are out from making an allocation fail: none; wait for them; cap what is out; swap
            in spare blocks. [default: wait]
        in_flight: What cap lets out at once, and swap keeps spare. [default: a 32nd of RAM, 4MiB to 64MiB;
            4MiB for the workload small]
        hints: Length of a vCPU's array of hints, for notify-array and hybrid. [default: 256]
        verify: Share of the reports whose discarding is read back from the kernel. [default: 1]
        device: Who serves the balloon: pagetide, or qemu, a stock QEMU without a guest. [default: pagetide]
        fault: What goes wrong, as above; may be given more than once.
        save_stream: Write the workload's operations to this Parquet file before they are run.
        machine: live: two processes on real memory, in real time. simulated: the same code in virtual time, with only
            the memory's metadata, and what things cost from --costs.
        costs: For --machine simulated, a file that `pagetide calibrate` wrote. [default: pagetide/costs.json in
            XDG_DATA_HOME if there is one, otherwise costs that come with pagetide]
        config: A TOML file with any of these settings, by the same names; options given here override it.
        json: Write everything measured to this file; - is standard output.
    """
    given: dict[str, Any] = {
        "workload": workload, "ram": ram, "vcpus": vcpus, "bursts": bursts, "eat-share": eat_share, "hold": hold,
        "rest": rest, "duration": duration, "rate": rate, "mix": mix, "stream": stream, "fault": fault or None,
        "backing": backing, "seed": seed, "design": design, "order": order, "delay": delay, "capacity": capacity,
        "pace": pace, "cool": cool, "wake": wake, "wake-blocks": wake_blocks, "oom": oom, "in-flight": in_flight,
        "hints": hints, "verify": verify, "device": device,
    }  # fmt: skip
    settings = make_config(read_file(config) if config else {}, given)
    if machine == "simulated":
        return run_simulated(settings, json, costs, save_stream)
    if costs is not None:
        raise ConfigError("--costs goes with --machine simulated: a live machine takes the time that it takes")
    return run_once(settings, json, save_stream)


_SERVE_EXAMPLES = """
Examples:

    pagetide serve --socket /run/vm1.sock
    pagetide serve --socket vm1.sock --socket vm2.sock --stats-interval 5 --no-free-page-hint
    pagetide serve --socket-dir /run/pagetide-guests

Exit status: 0 after SIGTERM or Ctrl-C, when what guests had asked for is answered; 1 if a socket cannot be had; 2 for
bad arguments.
"""


@app.command(help_epilogue=_SERVE_EXAMPLES)
def serve(
    *,
    socket: Annotated[tuple[Path, ...], Parameter(negative="")] = (),
    socket_dir: Path | None = None,
    control: Path | None = None,
    verify: float = 1.0,
    stats_interval: float = 0.0,
    stats: bool = True,
    deflate_on_oom: bool = True,
    free_page_hint: bool = True,
    page_poison: bool = True,
    reporting: bool = True,
) -> int:
    """Be the balloon device of real guests, each attached to a vhost-user socket.

    Args:
        socket: Where guests connect; may be given more than once. A guest is called after its socket.
        socket_dir: Or a folder, in which `pagetide ctl add NAME` makes NAME.sock. Sockets that a killed daemon left
            there are listened at again.
        control: Where `pagetide ctl` asks. [default: pagetide/control.sock in XDG_RUNTIME_DIR]
        verify: Share of the reports whose discarding is read back from the kernel.
        stats_interval: Seconds between requests for the guests' memory statistics; 0 for none.
        stats: Offer the statistics queue.
        deflate_on_oom: Let a guest take pages out of its balloon when it runs out of memory.
        free_page_hint: Offer free page hinting.
        page_poison: Offer to be told of the guest's page poison.
        reporting: Offer free page reporting.
    """
    offered = {
        "STATS_VQ": stats, "DEFLATE_ON_OOM": deflate_on_oom, "FREE_PAGE_HINT": free_page_hint,
        "PAGE_POISON": page_poison, "REPORTING": reporting,
    }  # fmt: skip
    without = frozenset(name for name, wanted in offered.items() if not wanted)
    return serve_command(
        socket, socket_dir, control, verify_share=verify, stats_interval_s=stats_interval, without=without
    )


_CTL_EXAMPLES = """
Examples:

    pagetide ctl list
    pagetide ctl set vm1 target=512MiB
    pagetide ctl pause vm1
    pagetide ctl add vm3

Exit status: 0 done; 1 the daemon says no, or none answers; 2 bad arguments.
"""


@app.command(help_epilogue=_CTL_EXAMPLES)
def ctl(
    command: str,
    guest: str | None = None,
    /,
    *settings: str,
    control: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Ask a running `pagetide serve`, or tell it what to do.

    Args:
        command: list; show, set, pause, resume, inhibit, uninhibit or hint, with a guest; add or remove, with the
            name of a guest whose socket is to be made or removed in the daemon's --socket-dir.
        guest: Its name, as list shows it.
        settings: For set: target=SIZE, the memory that the guest is to make do with.
        control: The daemon's control socket. [default: pagetide/control.sock in XDG_RUNTIME_DIR]
        json: Print JSON.
    """
    return ctl_command(command, guest, settings, control, json=json)


_BOOT_EXAMPLES = """
Examples:

    pagetide boot uml
    pagetide boot uml --order 7 --bursts 1 --json boot.json
    pagetide boot qemu --peer
    pagetide boot qemu --socket vm1.sock

Exit status: as for `pagetide run`.
"""


@app.command(help_epilogue=_BOOT_EXAMPLES)
def boot(
    kind: Literal["uml", "qemu"],
    /,
    *,
    kernel: Annotated[Path | None, Parameter(group=_GUEST)] = None,
    qemu: Annotated[Path | None, Parameter(group=_GUEST)] = None,
    ram: Annotated[str | None, Parameter(group=_GUEST)] = None,
    fill: Annotated[str | None, Parameter(group=_GUEST)] = None,
    bursts: Annotated[int | None, Parameter(converter=_whole, group=_GUEST)] = None,
    hold: Annotated[float | None, Parameter(group=_GUEST)] = None,
    order: Annotated[int | None, Parameter(converter=_whole, group=_REPORTING)] = None,
    verify: Annotated[float | None, Parameter(group=_REPORTING)] = None,
    peer: Annotated[bool, Parameter(negative="", group=_REPORTING)] = False,
    socket: Annotated[Path | None, Parameter(group=_REPORTING)] = None,
    control: Annotated[Path | None, Parameter(group=_REPORTING)] = None,
    json: Annotated[str | None, Parameter(allow_leading_hyphen=True, group=_OUTPUT)] = None,
) -> int:
    """Boot a real Linux guest attached to our host, and show what each of them holds.

    The guest writes a file to a tmpfs, keeps it and removes it, some times over. Its own kernel reports what is free.
    What a real guest does not tell, such as stamps, is missing from the summary and null in the JSON.

    Args:
        kind: uml, which is User-Mode Linux: a Linux kernel as a process; or qemu, which translates the guest's code.
            Neither needs root or hardware virtualisation.
        kernel: The kernel to boot: a linux.uml with its modules in ../lib/uml/modules, or FOLDER/boot/vmlinuz-RELEASE
            with its modules in FOLDER/lib/modules/RELEASE. [default: the installed one]
        qemu: The QEMU to use. Without --peer it must have the device vhost-user-test-device-pci, as 10.2 and newer do.
        ram: Guest memory, such as 512MiB or 2G. [default: 1GiB]
        fill: Size of the file. [default: 700MiB]
        bursts: How many times the guest writes and removes it. [default: 3]
        hold: Seconds for which it keeps the file. [default: 1]
        order: The smallest block that is reported is 2^ORDER pages of 4 KiB. [default: the kernel's own]
        verify: Share of the reports whose discarding is read back from the kernel. [default: 1]
        peer: Give the guest QEMU's own balloon instead of ours, for comparison.
        socket: Attach the guest to a running `pagetide serve` at this socket.
        control: Where that daemon answers. [default: pagetide/control.sock in XDG_RUNTIME_DIR]
        json: Write everything measured to this file; - is standard output.
    """
    given = {"ram": ram, "fill": fill, "bursts": bursts, "hold": hold, "order": order, "verify": verify}
    choice = BootChoice(kind, peer, socket, control, qemu, kernel)
    choice.check(given)
    return boot_once(choice, make_boot_config(given), json)


_CALIBRATE_EXAMPLES = """
Examples:

    pagetide calibrate
    pagetide calibrate --out this-machine.json
    pagetide run --machine simulated --costs this-machine.json

Exit status: 0 done; 1 no memory, or the file cannot be written; 2 bad arguments; 130 Ctrl-C.
"""


@app.command(help_epilogue=_CALIBRATE_EXAMPLES)
def calibrate(*, out: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Measure this machine, so that the simulated one takes as long: `run --machine simulated`.

    Takes some 10 s and 200 MiB of memory. What else the machine does meanwhile is measured, too.

    Args:
        out: The file to write. [default: pagetide/costs.json in XDG_DATA_HOME, where `run` looks]
        json: Print what was measured as JSON, instead of a table.
    """
    from pagetide.lab.calibrate_command import run_calibrate

    return run_calibrate(out, as_json=json)


@app.command
def conformance(*, device: str = "pagetide", json: bool = False) -> int:
    """Run the conformance vectors on a virtio-balloon device: every queue, rings, features, configuration.

    Effects are read from the memory file, not from return codes. What stock QEMU does differently is
    expected of it, and the table says why.

    Args:
        device: pagetide, qemu (a stock QEMU without a guest), or the path of a vhost-user socket.
        json: Print JSON instead of a table.
    """
    from pagetide.lab.conformance_command import run_conformance

    return run_conformance(device, as_json=json)


_EXPLORE_EXAMPLES = """
Examples:

    pagetide explore
    pagetide explore --design cursor --scenario zone
    pagetide explore --broken

Exit status: 0 if every invariant holds in every state (with --broken: if every variant is caught); 1 otherwise.
"""


@app.command(help_epilogue=_EXPLORE_EXAMPLES)
def explore(
    *,
    design: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    scenario: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    broken: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run every interleaving of two vCPUs, reporter and device over a tiny guest, and check each state.

    The code is the guest's and the host's own, stopped before each lock, atomic, kick and system call. What breaks an
    invariant is shown with the shortest sequence of steps that leads there.

    shared is explored with a host that takes frames, in scenarios of its own. balloon is not explored: it allocates
    what it hands over, and neither its queues nor its policy are part of the explored machine.

    Args:
        design: Explore only this; may be given more than once. [default: all but balloon]
        scenario: start, zone, ring, cap or swap; frames or take of shared; may be given more than once. [default: all]
        broken: Explore what is broken on purpose instead; each variant must be caught.
        json: Print JSON instead of a table.
    """
    from pagetide.lab.explore_command import explore as explore_all
    from pagetide.machine.explorer_scenarios import DESIGNS_EXPLORED, scenarios_of

    designs = design or DESIGNS_EXPLORED
    scenarios = tuple(dict.fromkeys(name for one in DESIGNS_EXPLORED for name in scenarios_of(one)))
    for chosen, known, what in ((design, DESIGNS_EXPLORED, "design"), (scenario, scenarios, "scenario")):
        for name in chosen:
            if name not in known:
                raise ConfigError(f"there is no {what} {name!r}; choose from {', '.join(known)}")
    if not broken and not any(name in scenarios_of(one) for one in designs for name in scenario or scenarios):
        raise ConfigError(
            f"{', '.join(designs)} has no scenario {', '.join(scenario)}; shared has frames and take alone"
        )
    return explore_all(designs, scenario or scenarios, broken=broken, as_json=json)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status. Bad arguments are one sentence on standard error."""
    try:
        result = app(list(sys.argv[1:] if argv is None else argv), exit_on_error=False, print_error=False)
    except (CycloptsError, ConfigError) as error:
        sentence = " ".join(str(error).split())
        print(f"pagetide: {sentence}", file=sys.stderr)
        return STATUS_USAGE
    except KeyboardInterrupt:
        return STATUS_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
