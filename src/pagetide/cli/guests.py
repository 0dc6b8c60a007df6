"""`pagetide run` and `pagetide boot`: a guest and its host, once."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from pagetide.cli.app import GUEST, OUTPUT, REPORTING, command, whole
from pagetide.guest.reporting.registry import DESIGNS

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

_DESIGNS_HELP = (
    "How free memory is returned: "
    + "; ".join(f"{name}, {place.about}" for name, place in DESIGNS.items())
    + ". [default: scan]"
)


@command(_USAGE_EXAMPLES)
def run(
    *,
    workload: Annotated[str | None, Parameter(group=GUEST)] = None,
    ram: Annotated[str | None, Parameter(group=GUEST)] = None,
    vcpus: Annotated[int | None, Parameter(converter=whole, group=GUEST)] = None,
    bursts: Annotated[int | None, Parameter(converter=whole, group=GUEST)] = None,
    eat_share: Annotated[float | None, Parameter(group=GUEST)] = None,
    hold: Annotated[float | None, Parameter(group=GUEST)] = None,
    rest: Annotated[float | None, Parameter(group=GUEST)] = None,
    duration: Annotated[float | None, Parameter(group=GUEST)] = None,
    rate: Annotated[float | None, Parameter(group=GUEST)] = None,
    mix: Annotated[str | None, Parameter(group=GUEST)] = None,
    stream: Annotated[str | None, Parameter(group=GUEST)] = None,
    pcp: Annotated[str | None, Parameter(group=GUEST)] = None,
    migratetypes: Annotated[bool | None, Parameter(group=GUEST)] = None,
    backing: Annotated[str | None, Parameter(group=GUEST)] = None,
    seed: Annotated[int | None, Parameter(converter=whole, group=GUEST)] = None,
    design: Annotated[str | None, Parameter(help=_DESIGNS_HELP, group=REPORTING)] = None,
    order: Annotated[int | None, Parameter(converter=whole, group=REPORTING)] = None,
    delay: Annotated[float | None, Parameter(group=REPORTING)] = None,
    capacity: Annotated[int | None, Parameter(converter=whole, group=REPORTING)] = None,
    pace: Annotated[str | None, Parameter(group=REPORTING)] = None,
    cool: Annotated[float | None, Parameter(group=REPORTING)] = None,
    wake: Annotated[str | None, Parameter(group=REPORTING)] = None,
    wake_blocks: Annotated[int | None, Parameter(converter=whole, group=REPORTING)] = None,
    oom: Annotated[str | None, Parameter(group=REPORTING)] = None,
    in_flight: Annotated[str | None, Parameter(group=REPORTING)] = None,
    hints: Annotated[int | None, Parameter(converter=whole, group=REPORTING)] = None,
    drop_share: Annotated[float | None, Parameter(group=REPORTING)] = None,
    keep: Annotated[float | None, Parameter(group=REPORTING)] = None,
    split: Annotated[bool | None, Parameter(group=REPORTING)] = None,
    verify: Annotated[float | None, Parameter(group=REPORTING)] = None,
    device: Annotated[str | None, Parameter(group=REPORTING)] = None,
    fault: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, group=REPORTING)] = (),
    save_stream: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    machine: Annotated[Literal["live", "simulated"], Parameter(group=OUTPUT)] = "live",
    costs: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    config: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    json: Annotated[str | None, Parameter(allow_leading_hyphen=True, group=OUTPUT)] = None,
    web: Annotated[str | None, Parameter(group=OUTPUT)] = None,
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
        pcp: The most that a vCPU keeps on lists of its own, out of the reach of reporting; more than its share of an
            eighth of RAM is that much, as in Linux since 6.7. [default: 16MiB]
        migratetypes: Whether what cannot be moved is kept together, as in Linux, by free lists of each kind.
            [default: if the stream says what can be]
        backing: memfd (4 KiB pages) or hugetmpfs (2 MiB pages; needs root). [default: memfd]
        seed: Drives every random choice. [default: 1]
        design: How free memory is returned.
        order: The smallest block that is reported is 2^ORDER pages of 4 KiB. [default: 9]
        delay: Seconds from a free until reporting begins. [default: 2 for designs that scan, for shared and with the
            timer, 1 for pool, otherwise 0; for the workload small 0, and 0.1 with pool]
        capacity: Blocks in one report, and so out of the allocator, at most. [default: 32]
        pace: drain reports until nothing is left; linux, for scan, a sixteenth of each list every DELAY.
            [default: drain]
        cool: Seconds for which a block must have been free before it is reported. [default: 0]
        wake: What makes the worker run: merge, a free block of that order; threshold, WAKE_BLOCKS of them; timer, only
            the clock. [default: threshold for designs that are notified, otherwise merge]
        wake_blocks: Unreported blocks that threshold waits for. [default: 16]
        oom: What keeps blocks that are out from making an allocation fail: none; wait for them; cap what is out; swap
            in spare blocks. [default: wait]
        in_flight: What cap lets out at once, and swap keeps spare. [default: a 32nd of RAM, 4MiB to 64MiB;
            4MiB for the workload small]
        hints: Length of a vCPU's array of hints, for notify-array and hybrid. [default: 256]
        drop_share: Share of its hints that hybrid may drop before it scans. [default: 0.01]
        keep: What pool keeps unreported, in seconds for which it lasts at the rate of allocations of late. [default: 5]
        split: Whether pool gives back parts of the host's 2 MiB pages, too, each of which splits one; otherwise what is
            free in pieces stays there.
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
        web: Show a page of it while it runs, at this address, such as 127.0.0.1:8080, from a process of its own. It
            needs the extra web (Starlette, uvicorn).
    """
    from pagetide.commands.run import run as run_once
    from pagetide.commands.run import run_simulated
    from pagetide.machine.settings.file import make_config, read_file
    from pagetide.machine.settings.fits import refuse_misfits

    given: dict[str, Any] = {
        "workload": workload, "ram": ram, "vcpus": vcpus, "bursts": bursts, "eat-share": eat_share, "hold": hold,
        "rest": rest, "duration": duration, "rate": rate, "mix": mix, "stream": stream, "pcp": pcp,
        "migratetypes": migratetypes,
        "fault": fault or None, "backing": backing, "seed": seed, "design": design, "order": order, "delay": delay,
        "capacity": capacity, "pace": pace, "cool": cool, "wake": wake, "wake-blocks": wake_blocks, "oom": oom,
        "in-flight": in_flight, "hints": hints, "drop-share": drop_share, "keep": keep, "split": split,
        "verify": verify, "device": device,
    }  # fmt: skip
    in_file = read_file(config) if config else {}
    settings = make_config(in_file, given)
    options = [name for name, value in {**given, "costs": costs}.items() if value is not None]
    refuse_misfits(settings, options, in_file, machine)
    if machine == "simulated":
        return run_simulated(settings, json, costs, save_stream, web=web)
    return run_once(settings, json, save_stream, web=web)


_BOOT_EXAMPLES = """
Examples:

    pagetide boot uml
    pagetide boot uml --order 7 --bursts 1 --json boot.json
    pagetide boot qemu --peer
    pagetide boot qemu --socket vm1.sock
    pagetide boot qemu --arch arm64

Exit status: as for `pagetide run`.
"""


@command(_BOOT_EXAMPLES)
def boot(
    kind: Literal["uml", "qemu"],
    /,
    *,
    arch: Annotated[str | None, Parameter(group=GUEST)] = None,
    kernel: Annotated[Path | None, Parameter(group=GUEST)] = None,
    qemu: Annotated[Path | None, Parameter(group=GUEST)] = None,
    ram: Annotated[str | None, Parameter(group=GUEST)] = None,
    fill: Annotated[str | None, Parameter(group=GUEST)] = None,
    bursts: Annotated[int | None, Parameter(converter=whole, group=GUEST)] = None,
    hold: Annotated[float | None, Parameter(group=GUEST)] = None,
    sieve: Annotated[bool, Parameter(negative="", group=GUEST)] = False,
    build: Annotated[bool, Parameter(negative="", group=GUEST)] = False,
    order: Annotated[int | None, Parameter(converter=whole, group=REPORTING)] = None,
    tend: Annotated[bool, Parameter(negative="", group=REPORTING)] = False,
    verify: Annotated[float | None, Parameter(group=REPORTING)] = None,
    peer: Annotated[bool, Parameter(negative="", group=REPORTING)] = False,
    socket: Annotated[Path | None, Parameter(group=REPORTING)] = None,
    control: Annotated[Path | None, Parameter(group=REPORTING)] = None,
    json: Annotated[str | None, Parameter(allow_leading_hyphen=True, group=OUTPUT)] = None,
) -> int:
    """Boot a real Linux guest attached to our host, and show what each of them holds.

    The guest writes a file to a tmpfs, keeps it and removes it, some times over. Its own kernel reports what is free.
    What a real guest does not tell, such as stamps, is missing from the summary and null in the JSON.

    Args:
        kind: uml, which is User-Mode Linux: a Linux kernel as a process; or qemu, which translates the guest's code.
            Neither needs root or hardware virtualisation.
        arch: For qemu, a guest of another architecture, page size or kernel: i386, arm64, arm64-16k, ppc64el,
            ppc64el-64k, riscv64, s390x (with --peer), or amd64-trixie, which has the kernel of Debian 13. As root on
            Debian, `make setup-guests ARCH=...` fetches what it needs.
            [default: amd64]
        kernel: The kernel to boot: a linux.uml with its modules in ../lib/uml/modules; or FOLDER/boot/vmlinuz-RELEASE
            with its modules in FOLDER/lib/modules/RELEASE, or vmlinuz beside its modules, as Debian 14 has it.
            [default: for uml the installed one or that of make setup-guests, whichever runs on this processor; for qemu
            that of make setup-guests, or the newest installed]
        qemu: The QEMU to use. Without --peer it must have the device vhost-user-test-device-pci, as 10.2 and newer do.
        ram: Guest memory, such as 512MiB or 2G. [default: 1GiB; 3GiB for arm64-16k]
        fill: Size of the file. [default: 700MiB]
        bursts: How many times the guest writes and removes it. [default: 3]
        hold: Seconds for which it keeps the file. [default: 1]
        sieve: Every other page of the file goes to a second file that stays, so that what is removed is free in single
            pages, of which stock reporting returns nothing.
        build: Instead of the file write a tree of small ones, each by short-lived processes, two at a time, as a build
            makes its objects; all but a fifth is removed.
        order: The smallest block that is reported is 2^ORDER of the guest's pages. [default: the kernel's own]
        tend: Run `pagetide tend` in the guest.
        verify: Share of the reports whose discarding is read back from the kernel. [default: 1]
        peer: Give the guest QEMU's own balloon instead of ours, for comparison.
        socket: Attach the guest to a running `pagetide serve` at this socket.
        control: Where that daemon answers. [default: pagetide/control.sock in
            XDG_RUNTIME_DIR, or in /tmp/pagetide-UID; under the systemd unit it is /run/pagetide/control.sock]
        json: Write everything measured to this file; - is standard output.
    """
    from pagetide.commands.boot import BootChoice, make_boot_config
    from pagetide.commands.boot import boot as boot_once

    given = {"ram": ram, "fill": fill, "bursts": bursts, "hold": hold, "order": order, "verify": verify}
    given |= {"sieve": sieve or None, "build": build or None, "tend": tend or None}
    choice = BootChoice(kind, peer, socket, control, qemu, kernel, arch)
    choice.check(given)
    return boot_once(choice, make_boot_config(given, choice.architecture), json)


_TEND_EXAMPLES = """
Examples:

    pagetide tend --dry-run
    pagetide tend --print sh >/usr/local/sbin/pagetide-tend
    pagetide boot uml --ram 512MiB --fill 300MiB --sieve --tend

Exit status: 0 ended by a signal or --once; 1 this kernel has no free page reporting, no root, or
a value is out of its range; 2 bad arguments.
"""


@command(_TEND_EXAMPLES)
def tend(
    *,
    print_: Annotated[Literal["sh", "py"] | None, Parameter(name="--print")] = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    once: Annotated[bool, Parameter(negative="")] = False,
    idle: Annotated[int, Parameter(converter=whole)] = 5,
    busy: Annotated[int, Parameter(converter=whole)] = 30,
    worth: Annotated[int, Parameter(converter=whole)] = 16,
    least_order: Annotated[int, Parameter(converter=whole)] = 0,
    cache: Annotated[int | None, Parameter(converter=whole)] = None,
) -> int:
    """Inside a guest: have stock free page reporting give back what it leaves, whenever the guest is idle.

    Linux reports blocks of one order and above (9 on x86), of zones with more than 32 of them free. What is free
    otherwise, or on per-CPU lists, stays with the host. This compacts, then lowers the order for a while, and puts
    everything back. Each line says what was done and what it brought. It is one script for any POSIX shell, busybox's
    too; or one for Python.

    Args:
        print_: Print the script, to be copied into a guest without pagetide: sh, or py for Python 3.8 and newer.
        dry_run: Say what would be done now if the guest were idle, and why, and change nothing.
        once: End after the first time.
        idle: Seconds of idleness before anything is done.
        busy: The guest is busy above this use of one processor in percent, or 5 % of all.
        worth: MiB left below which nothing is done.
        least_order: Do not lower the order below this.
        cache: While the guest is idle, also give back page cache beyond this share of memory in percent, little by
            little, until tasks wait for it (memory.reclaim of cgroup v2, and PSI). This runs the script for Python.
            [default: page cache is left alone]
    """
    from pagetide.commands.tend import print_script, run_script

    if print_:
        return print_script(print_)
    flags = [name for name, given in (("--dry-run", dry_run), ("--once", once)) if given]
    values = {"--idle": idle, "--busy": busy, "--worth": worth, "--least-order": least_order}
    if cache is not None:
        values["--cache"] = cache
    words = [*flags, *(word for name, value in values.items() for word in (name, str(value)))]
    return run_script(words, "sh" if cache is None else "py")
