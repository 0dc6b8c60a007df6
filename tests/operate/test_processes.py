"""The process that runs a VM: what its command line and the kernel say of it."""

import ctypes
import errno
import mmap
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pagetide.operate.host import processes
from pagetide.operate.host.guest_ram import guest_ram
from pagetide.operate.host.page_tables import Pages, pages_of
from pagetide.operate.host.processes import ProcessError, find_vms, look_at, proc_text
from pagetide.operate.host.smaps import read_smaps
from pagetide.operate.host.vmm_options import (
    backends_of,
    balloon_sockets,
    find_balloons,
    holds_device,
    passes_devices,
    which_vmm,
)
from pagetide.units import MIB
from tests.needed import lacking

SMAPS = """\
7f0000000000-7f0008000000 rw-s 00001000 00:01 77                         /memfd:memory-backend-memfd (deleted)
Size:             131072 kB
KernelPageSize:        4 kB
Rss:                2048 kB
Swap:                512 kB
VmFlags: rd wr sh mr mw me ms lo
7f0010000000-7f0010200000 rw-p 00000000 00:0f 12                         /anon_hugepage (deleted)
Rss:                   0 kB
Private_Hugetlb:    2048 kB
VmFlags: rd wr mr mw me ht
7ffc0000-7ffc1000 r-xp 00000000 00:00 0                          [vdso]
Rss:                   4 kB
"""


def test_mappings_are_read_with_their_figures() -> None:
    """Addresses, name, figures and flags of each; hugetlbfs counts although Rss has it not."""
    ram, huge, vdso = read_smaps(SMAPS)
    assert (ram.size_bytes, ram.offset, ram.inode, ram.is_shared) == (128 * MIB, 4096, 77, True)
    assert ram.name.startswith("/memfd:memory-backend-memfd")
    assert (ram.resident_bytes, ram.swapped_bytes, "lo" in ram.flags) == (2 * MIB, MIB // 2, True)
    assert (huge.is_hugetlb, huge.is_shared, huge.resident_bytes) == (True, False, 2 * MIB)
    assert (vdso.inode, vdso.resident_bytes) == (0, 4096)


@pytest.mark.parametrize(
    ("words", "reporting"),
    [
        ("-device virtio-balloon-pci,free-page-reporting=on", True),
        ("-device virtio-balloon-pci,id=b,bus=pci.0", False),
        ("-device virtio-balloon-pci,free-page-reporting=off", False),
        ('-device {"driver":"virtio-balloon-pci","id":"b","free-page-reporting":true}', True),
        ('-device {"driver":"virtio-balloon-pci","id":"b"}', False),
    ],
)
def test_qemus_balloon_is_read_from_its_options(words: str, reporting: bool) -> None:
    """With commas, as people write it, and as JSON, as libvirt does."""
    (balloon,) = find_balloons("QEMU", ["qemu-system-x86_64", *words.split()]) or ()
    assert (balloon.is_ours, balloon.offers_reporting) == (False, reporting)


def test_a_balloon_behind_a_socket_is_read_with_its_socket() -> None:
    """Ours, on QEMU's generic device and on User-Mode Linux; a comma in a path is doubled for QEMU."""
    device = "vhost-user-test-device-pci,chardev=c,virtio-id=5,num_vqs=4"
    words = [
        "qemu",
        "-chardev",
        "socket,id=d,path=/other",
        "-chardev",
        "socket,id=c,path=/a,,b.sock",
        "-device",
        device,
    ]
    (balloon,) = find_balloons("QEMU", words) or ()
    assert (balloon.is_ours, balloon.offers_reporting) == (True, None)
    assert balloon_sockets("QEMU", words) == ["/a,b.sock"]
    assert find_balloons("QEMU", [word.replace("virtio-id=5", "virtio-id=1") for word in words]) == ()
    words = ["linux", "mem=1G", "virtio_uml.device=/vm.sock:5", "virtio_uml.device=/net.sock:1"]
    assert which_vmm("linux", words) == "User-Mode Linux"
    assert len(find_balloons("User-Mode Linux", words) or ()) == 1
    assert balloon_sockets("User-Mode Linux", words) == ["/vm.sock"]


@pytest.mark.parametrize(
    ("program", "vmm"),
    [
        ("qemu-system-aarch64", "QEMU"),
        ("kvm", "QEMU"),
        ("kvm-nx-lpage-re", "not known"),
        ("firecracker", "Firecracker"),
        ("linux.uml", "User-Mode Linux"),
        ("python3", "not known"),
    ],
)
def test_a_vmm_is_known_by_its_program(program: str, vmm: str) -> None:
    """Kernel threads and tools that are called after KVM are none."""
    assert which_vmm(program, []) == vmm


def test_devices_that_pin_memory_are_seen() -> None:
    """vfio, in either form; an option that is no JSON is left alone."""
    assert passes_devices(["-device", "vfio-pci,host=01:00.0"])
    assert passes_devices(["-device", '{"driver":"vfio-pci"}'])
    assert passes_devices(["-netdev", "vhost-vdpa,vhostdev=/dev/vhost-vdpa-0,id=n"])
    assert not passes_devices(["-device", "{", "-device", "virtio-net-pci", "-device"])


RAM, OTHER = "-object memory-backend-ram,id=r,size=512M", "-object memory-backend-memfd,id=o,size=256M"


@pytest.mark.parametrize(
    ("words", "told", "sizes_mib"),
    [
        ("-m 512", (), [512]),
        ("-m size=1G,slots=2,maxmem=4G", (), [1024]),
        ("-m 128 -m 1.5G -m slots=2", (), [1536]),
        ("-m 0x60", (), [96]),
        ("-m 0x600000f", (), [96 + 15 / MIB]),
        ("-m 0x40M", (), [64]),
        ("-m 104857600b", (), [100]),
        ("-machine pc,memory-backend=r -object memory-backend-memfd,id=r,size=1.5G", (), [1536]),
        ("-machine memory-backend=r -object memory-backend-memfd,id=r,size=0x4000000", (), [64]),
        (f"-m 512M {RAM} -machine pc,memory-backend=r", (), [512]),
        ('-m 512M -object {"qom-type":"memory-backend-ram","id":"r","size":1048576} -M memory-backend=r', (), [1]),
        (f"-m 768M {RAM} {OTHER} -numa node,memdev=r -numa node,memdev=o", (), [512, 256]),
        (f"-m 1G,maxmem=2G {RAM} -device virtio-mem-pci,memdev=r", (), [512, 1024]),
        (f"-m 512M {RAM} {OTHER} -machine memory-backend=r -device ivshmem-plain,memdev=o", (), [512]),
        (f"-m 512M {RAM} {OTHER} -machine memory-backend=r", (512, 256, 64), [512, 64]),
        ("-m 512M", (512, 256), [512, 256]),
    ],
)
def test_a_guests_memory_is_read_from_qemus_options(words: str, told: tuple[int, ...], sizes_mib: list[float]) -> None:
    """Backends that the machine, a node or a memory device has; the monitor knows those that were plugged in."""
    found = backends_of("QEMU", words.split(), [size_mib * MIB for size_mib in told])
    assert found == [size_mib * MIB for size_mib in sizes_mib]


@pytest.mark.parametrize(
    "words",
    [
        "",
        "-readconfig vm.cfg",
        "-m slots=2",
        "-m 1.5",
        "-m 1,5G",
        f"-m 512M {RAM} -numa node,memdev=r -numa node,memdev=o",
        f"-m 1G {RAM} -machine memory-backend=r {OTHER.replace('256M', 'half')} -device pc-dimm,memdev=o",
        "-m 512M -device virtio-mem-pci,memdev=r",
    ],
)
def test_a_size_that_is_not_understood_leaves_it_to_names(words: str) -> None:
    """A size that was made up, or one of several, would have another mapping of the process taken for memory."""
    found = backends_of("QEMU", words.split(), ())
    heap, ram = "7f0000000000-7f000c800000 rw-p 00000000 00:00 0", "7f1000000000-7f1060000000 rw-s 00000000 00:01 77"
    (named,), is_guessed = guest_ram(
        "QEMU", list(read_smaps(f"{heap}\n{ram} /memfd:memory-backend-memfd (deleted)\n")), found
    )
    assert ([each.inode for each in named], is_guessed) == ([77], False)


def test_memory_that_has_a_name_may_be_one_node_of_two() -> None:
    """What the VMM says goes before names; without it a name is all there is."""
    smaps = "\n".join(
        f"7f{place}000000000-7f{place}010000000 {permissions} 00000000 {device} {inode} {name}\nRss: 0 kB\nVmFlags: rd"
        for place, (permissions, device, inode, name) in enumerate(
            [("rw-s", "00:01", 77, "/memfd:memory-backend-memfd"), ("rw-p", "00:00", 0, ""), ("rwxp", "00:00", 0, "")]
        )
    )
    mappings = list(read_smaps(smaps))
    told, is_guessed = guest_ram("QEMU", mappings, [256 * MIB, 256 * MIB])
    assert ([each.name[:7] for (each,) in told], is_guessed) == (["/memfd:", ""], False)
    named, _ = guest_ram("QEMU", mappings, [])
    assert [each.name[:7] for (each,) in named] == ["/memfd:"]


@pytest.mark.parametrize("folder", ["/dev/shm", None])
def test_a_file_is_called_after_its_file_system(tmp_path: Path, folder: str | None) -> None:
    """Not after its path: /tmp may be a disk, and may be a tmpfs."""
    path = Path(folder or tmp_path) / f"{tmp_path.name}-ram"
    try:
        with path.open("wb+") as file:
            os.truncate(file.fileno(), 64 * MIB)
            with mmap.mmap(file.fileno(), 64 * MIB):
                (ram,) = look_at(os.getpid(), [64 * MIB]).ram
    finally:
        path.unlink()
    assert (ram.kind, ram.is_shared) == ("tmpfs" if _is_tmpfs(path.parent) else "file", True)


def test_shared_memory_without_a_file_is_anonymous() -> None:
    """The kernel gives it the name of /dev/zero, and no file of a file system."""
    with mmap.mmap(-1, 64 * MIB):
        (ram,) = look_at(os.getpid(), [64 * MIB]).ram
    assert (ram.kind, ram.is_shared) == ("anonymous", True)


def _await_stop(process: subprocess.Popen[bytes]) -> None:
    """Until it has stopped itself: nothing of what it holds changes from then on."""
    told = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert told is not None
    assert told.si_code == os.CLD_STOPPED


def test_the_page_tables_tell_what_smaps_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with 256 MiB of shared memory, of which 3000 pages apart are there, and 4 MiB of its own beside."""
    code = (
        "import mmap, os; fd = os.memfd_create('memory-backend-memfd'); os.truncate(fd, 256 << 20)\n"
        "m = mmap.mmap(fd, 256 << 20); own = bytearray(b'x') * (4 << 20)\n"
        "for at in range(3000): m[at * 65536] = 1\n"
        "os.kill(os.getpid(), 19)"
    )
    program = tmp_path / "qemu-system-test"
    program.symlink_to(sys.executable)
    # Whether anything else on this machine is in swap is no matter here.
    monkeypatch.setattr(processes, "_has_what_they_lack", lambda pid: False)

    def refuse(*_: int) -> Pages:
        raise OSError(errno.ENOTTY, "as an older kernel")

    with subprocess.Popen([program, "-c", code]) as process:
        try:
            _await_stop(process)
            found = look_at(process.pid)
            slow = [each for each in read_smaps(proc_text(process.pid, "smaps")) if not each.name.startswith("[v")]
            with monkeypatch.context() as patch:
                patch.setattr(processes, "pages_of", refuse)
                by_smaps = look_at(process.pid)
            quick = [pages_of(process.pid, each.start, each.end) for each in slow]
        except OSError as error:
            lacking(f"the page tables cannot be read so: {error.strerror}")
        finally:
            process.kill()
    assert (found.told_by, by_smaps.told_by) == ("PAGEMAP_SCAN", "smaps")
    assert found == msgspec.structs.replace(by_smaps, told_by="PAGEMAP_SCAN")
    assert [pages.there_bytes for pages in quick] == [each.resident_bytes for each in slow]
    assert (3000 * 4096, 0) in quick


def test_page_tables_are_not_asked_of_what_is_locked() -> None:
    """They do not know it; smaps does."""
    fd = os.memfd_create("memory-backend-memfd")
    os.truncate(fd, 64 * MIB)
    with mmap.mmap(fd, 64 * MIB) as memory:
        os.close(fd)
        page = ctypes.c_char.from_buffer(memory)
        try:
            assert ctypes.CDLL(None).mlock(ctypes.byref(page), 1) == 0
            found = look_at(os.getpid(), [64 * MIB])
        finally:
            del page
    assert found.told_by == "smaps"


def test_a_vms_own_processes_are_none_that_map_its_memory_too() -> None:
    """A User-Mode Linux has one for each process of its guest; who has started a VM is another."""
    fd = os.memfd_create("memory-backend-memfd")
    try:
        os.truncate(fd, 64 * MIB)
        code = f"import mmap, sys; m = mmap.mmap({fd}, 64 << 20); print(flush=True); sys.stdin.read()"
        with (
            mmap.mmap(fd, 64 * MIB),
            subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd]
            ) as process,
        ):
            assert process.stdout is not None
            process.stdout.readline()
            others = [sum(part.others for part in look_at(pid).ram) for pid in (os.getpid(), process.pid)]
            process.kill()
    finally:
        os.close(fd)
    assert others == [0, 1]


def _is_tmpfs(path: Path) -> bool:
    return subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, check=True).stdout == b"tmpfs\n"


def test_what_a_process_holds_adds_up_to_the_kernels_figure(tmp_path: Path) -> None:
    """A process with 64 MiB of private memory, half of it touched; the kernel's own sum is its smaps_rollup."""
    code = (
        "import mmap, os; m = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "for at in range(0, 32 << 20, 4096): m[at] = 1\n"
        "os.kill(os.getpid(), 19)"
    )
    program = tmp_path / "qemu-system-test"
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-c", code]) as process:
        _await_stop(process)
        found, told = look_at(process.pid), look_at(process.pid, [64 * MIB])
        missing = look_at(process.pid, [64 * MIB, 96 * MIB])
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        process.kill()
    (rss_kib,) = (int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Rss:"))
    assert abs(found.held_bytes - (rss_kib << 10)) < MIB
    assert found.ram_is_guessed
    assert missing.ram_is_guessed, "a backend that no mapping can be"
    assert not told.ram_is_guessed
    assert told.ram == found.ram
    (ram,) = found.ram
    assert (ram.kind, ram.is_shared) == ("anonymous", False)
    assert 64 * MIB <= ram.size_bytes < 66 * MIB
    assert 32 * MIB <= ram.held_bytes < 34 * MIB


def test_a_device_that_was_plugged_in_is_seen_by_its_descriptors() -> None:
    """A container of vfio, a device of its, or one of vDPA; the folder of vhost alone says nothing."""
    assert holds_device(["/dev/null", "/dev/vfio/12"])
    assert holds_device(["anon_inode:[vfio-device]"])
    assert holds_device(["/dev/vhost-vdpa-0"])
    assert not holds_device(["/dev/vhost-net", "anon_inode:kvm-vm", "socket:[1]"])


def test_a_process_that_is_not_there_is_said() -> None:
    """One that has ended, and one that is no VM."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises(ProcessError, match=f"there is no process {process.pid}"):
        look_at(process.pid)
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
        with pytest.raises(ProcessError, match=f"process {process.pid} has ended"):
            look_at(process.pid)
    with subprocess.Popen(["sleep", "60"]) as process, mmap.mmap(-1, 4096):
        try:
            with pytest.raises(ProcessError, match="has no memory that could be a guest's"):
                look_at(process.pid)
            assert process.pid not in list(find_vms())
            assert os.getpid() not in list(find_vms())
        finally:
            process.kill()
