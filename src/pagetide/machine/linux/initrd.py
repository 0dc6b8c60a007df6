"""The initial file system of a real Linux guest: busybox, modules up to the balloon's, and an init that takes orders.

The init reads commands from the console and answers with marker lines, each of which begins with `@`:

- `fill MIB` writes a file of that size to a tmpfs and answers `@filled`; `remove` removes it and answers `@removed`;
- `tell FILE` answers `@line TEXT` for each line of a file, `put FILE TEXT` writes a line to one, `mkdir` and `rmdir`
  make and remove a folder; each answers `@told` in the end, or `@refused`;
- `send FILE BYTES` answers `@told` and writes what it reads from the file, in pieces of that size, to the second serial
  port, until `sent` ends it, which answers `@told`, too;
- `stop` switches the guest off; `@failed TEXT` is the answer to any of them that did not work;
- on its own it says `@ready RELEASE ORDER PAGE_KIB ORDERS` once: the kernel's release, the reporting order in force,
  the size of its pages, and how many orders its allocator has; and `@memory FREE_KIB LISTED_KIB` before each answer and
  five times a second: memory that is free, and that on the lists for reclaim, where the pages of all files and
  processes are. A block that is isolated for a report is neither.

Busybox's `read` forgets what it has of a line when its time is up, and a slow guest takes some of that time for each
character. So only the first has to come in time.

Two who tell would be one too many: what one had read before an answer could come out after it. So whoever tells while a
file is written has ended before the answer.

With `sieve=1` on the kernel's command line, `fill` writes every other page to a second file, which `remove` leaves.
With `build=1` it writes a tree of files of 4 to 1004 KiB: each is written by one process out of what another one has in
a buffer of up to 3 MiB, and two are being made at a time. `remove` leaves a fifth of them.
With `tend=1` the guest is tended (inside/tend.sh) from before `@ready` to the first `remove`, as by a unit that starts
with it, and later from each `fill` on; anew and once from `remove` on, and `@tended` says when that is done: what is
not anew could be done with what was there before.

`reporting_order=N` on the kernel's command line, which the kernel hands to init as a variable, sets the order. The
kernel's own `page_reporting.page_reporting_order=N` would not do: Linux 6.1 forgets it when the driver registers
(mm/page_reporting.c, page_reporting_register).

Writing to a tmpfs is kernel work: a guest whose user space faults slowly (User-Mode Linux) still fills at full speed.
"""

import stat
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pagetide.inside import tend_script
from pagetide.machine.linux.kernel_modules import KernelModule

INIT = """\
#!/bin/busybox sh
export PATH=/bin
stty -echo -icanon
mount -t proc none /proc
mount -t sysfs none /sys
mount -t tmpfs -o size=100% none /mnt
mount -t tracefs none /sys/kernel/tracing 2>/dev/null
for module in /modules/*; do
    [ -e "$module" ] || break
    insmod "$module" || echo "@failed the kernel module ${module##*/} cannot be loaded"
done
set -- /sys/bus/virtio/drivers/virtio_balloon/virtio*
[ -e "$1" ] || echo "@failed the guest has found no balloon"
page_kib=4
while read -r name value _; do
    [ "$name" = KernelPageSize: ] && page_kib=$value && break
done </proc/self/smaps
tell_memory() {
    listed=0
    while read -r name pages; do
        case $name in
        nr_free_pages) free=$pages ;;
        nr_zone_active_* | nr_zone_inactive_*) listed=$((listed + pages)) ;;
        nr_zone_unevictable) break ;;
        esac
    done </proc/vmstat
    echo "@memory $((free * page_kib)) $(((listed + pages) * page_kib))"
}
# build MIB FIRST: every other file of a tree of this size, from this one on
build() {
    number=$2 left_kib=$(($1 * 512))
    while [ $left_kib -gt 0 ]; do
        pages=$((number * 37 % 251 + 1)) buffer_mib=$((number * 5 % 3 + 1))
        dd if=/dev/zero bs=${buffer_mib}M count=1 2>/dev/null |
            dd of=/mnt/fill/$number bs=4k count=$pages 2>/dev/null || return
        number=$((number + 2)) left_kib=$((left_kib - pages * 4))
    done
}
order_file=/sys/module/page_reporting/parameters/page_reporting_order
[ -n "$reporting_order" ] && echo "$reporting_order" >$order_file
read -r order <$order_file
read -r release </proc/sys/kernel/osrelease
removed=/mnt/fill${build:+/*[!05]}
read -r _ _ _ _ counts </proc/buddyinfo
set -- $counts
# Where a processor is emulated the script's start takes tenths of a second: whoever measures a load has that before it.
# A job that ends while ash opens a fifo ends ash (findings/ash_fifo_interrupted.sh); opened for both, nobody waits.
tend_on() {
    exec 3<>/tmp/tend
    sh /tend.sh >/tmp/tend 2>&1 3<&- &
    tender=$!
    read -r line <&3 && echo "$line"
    cat </tmp/tend 3<&- &
    exec 3<&-
}
tend_once() {
    sh /tend.sh --once 2>&1 && echo "@tended" || echo "@failed the guest cannot be tended"
}
[ -z "$tend" ] || { mkfifo /tmp/tend && tend_on; }
tell_memory
echo "@ready $release $order $page_kib $#"
while :; do
    command= argument=
    if read -r -t 0.2 -n 1 first && [ -n "$first" ]; then
        read -r command argument
        command=$first$command
    fi
    case $command in
    fill)
        [ -z "$tend" ] || [ "$tender" ] || tend_on
        while :; do tell_memory; sleep 0.2; done &
        teller=$! why=
        if [ -n "$sieve" ]; then
            why=$(dd if=/dev/zero bs=4k count=$((argument * 128)) 2>&1 | tee /mnt/fill >/mnt/kept)
        elif [ -n "$build" ]; then
            mkdir -p /mnt/fill
            build "$argument" 1 &
            job=$!
            build "$argument" 2 && wait $job
        else
            why=$(dd if=/dev/zero of=/mnt/fill bs=1M count="$argument" 2>&1)
        fi
        status=$?
        kill $teller
        wait $teller
        if [ $status = 0 ]; then tell_memory; echo "@filled"
        else echo "@failed the file could not be written (status $status)" $why
        fi ;;
    remove)
        rm $removed && tell_memory && echo "@removed" || echo "@failed the file cannot be removed"
        [ -z "$tend" ] || { kill $tender; wait $tender; tender=; tend_once & } ;;
    tell)
        if [ -r "$argument" ]; then
            dd if="$argument" bs=64k 2>/dev/null | while IFS= read -r line; do echo "@line $line"; done
            echo "@told"
        else echo "@refused"
        fi ;;
    put)
        file=${argument%% *}
        [ -w "$file" ] && echo "${argument#* }" >"$file" && echo "@told" || echo "@refused" ;;
    mkdir | rmdir) $command "$argument" && echo "@told" || echo "@refused" ;;
    send)
        stty -F /dev/ttyS1 raw
        dd if="${argument% *}" of=/dev/ttyS1 bs="${argument#* }" 2>/dev/null &
        sender=$!
        echo "@told" ;;
    sent) kill $sender && wait $sender; echo "@told" ;;
    stop) break ;;
    *) tell_memory ;;
    esac
done
poweroff -f
"""
"""The guest's first and only program."""

_APPLETS = (
    "cat", "dd", "grep", "insmod", "mkdir", "mkfifo", "mount", "mv", "poweroff", "rm", "rmdir", "sh", "sleep", "stty",
    "tee",
)  # fmt: skip
_NEWC_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


class Entry(NamedTuple):
    """A file, directory or device node of the archive.

    Attributes:
        name: path without a leading slash.
        mode: type and permissions, as in stat(2).
        data: a file's content, or where a symbolic link leads.
        device: a node's major and minor number.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio_archive(entries: list[Entry]) -> bytes:
    """These entries, owned by root, as a cpio archive.

    The format is `newc` (Linux 6.1, Documentation/driver-api/early-userspace/buffer-format.rst).

    Raises:
        ValueError: a name is empty, absolute or the archive's own end mark, or a file is 4 GiB or more.
    """
    for entry in entries:
        if not entry.name or entry.name.startswith("/") or entry.name == _TRAILER:
            raise ValueError(f"{entry.name!r} cannot be the name of a file in an initrd")
        if len(entry.data) >= 1 << 32:
            raise ValueError(f"{entry.name} is too large for an initrd")
    numbered = enumerate([*entries, Entry(_TRAILER, 0)], 1)
    return b"".join(_record(inode, entry) for inode, entry in numbered)


def guest_initrd(busybox: bytes, modules: Sequence[KernelModule]) -> bytes:
    """The whole archive for a guest: its init, this busybox (static) and these modules, loaded in this order."""
    return initrd_of({"init": INIT, "tend.sh": tend_script()}, _APPLETS, busybox, modules)


def initrd_of(
    scripts: Mapping[str, str], applets: Sequence[str], busybox: bytes, modules: Sequence[KernelModule]
) -> bytes:
    """An archive with these scripts by their names, a static busybox, its applets, and modules numbered in order."""
    folders = [Entry(name, stat.S_IFDIR | 0o755) for name in ("bin", "dev", "mnt", "modules", "proc", "sys", "tmp")]
    links = [Entry(f"bin/{name}", stat.S_IFLNK | 0o777, b"busybox") for name in applets]
    nodes = [
        Entry(f"dev/{name}", stat.S_IFCHR | 0o600, device=device)
        for name, device in (("console", (5, 1)), ("null", (1, 3)), ("ttyS1", (4, 65)), ("zero", (1, 5)))
    ]
    files = [
        *(Entry(name, stat.S_IFREG | 0o755, script.encode()) for name, script in scripts.items()),
        Entry("bin/busybox", stat.S_IFREG | 0o755, busybox),
        *(
            Entry(f"modules/{place:02}-{module.name}", stat.S_IFREG | 0o644, module.data)
            for place, module in enumerate(modules)
        ),
    ]
    return cpio_archive(folders + nodes + links + files)


def _record(inode: int, entry: Entry) -> bytes:
    """Header, name and data, each padded to 4 bytes."""
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device of the file system, device of the node, name's length, checksum
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = _NEWC_MAGIC + b"".join(b"%08x" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
