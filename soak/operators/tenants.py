"""Real guests that come, burst, are started again and go; some of them have a fault for a while."""

import json
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pagetide.machine.linux.packages import find_linux, find_qemu, find_uml
from pagetide.units import format_size
from soak.children import PAGETIDE
from soak.operators.books import Books, books_of
from soak.operators.timetable import KEPT
from soak.operators.yard import SETTLE_MAX_S, Actor, Injected, Yard
from tests.clinic.patient import MIB, Patient, fill, qemu_patient, uml_patient

_UML_MIB, _QEMU_MIB = 192, 256
"""The kernel's own memory, which no statistics tell, is no quarter of that, or the alert would fire for it."""
_TARGET_LESS = 40 * MIB
_BURST_MIB = (8, 40)
_FAULT_MIB = 60
_ORDER = 5
"""Linux reports nothing while less is free than 32 blocks (mm/page_reporting.c): of 4 MiB, as is its own choice,
that would be all the memory that such a guest has."""
_LINUX_DELAY_S = 2.0
_STAY_BURSTS = (3, 10)
_QUIET_S = 3 * _LINUX_DELAY_S

Boot = Callable[[Path, Path], Patient]
"""Boots a VM with its files in a folder and its balloon at a socket."""


def uml_boot() -> tuple[str, Boot]:
    """User-Mode Linux."""
    parts = find_uml()
    return "User-Mode Linux", lambda folder, balloon: uml_patient(parts, folder, balloon, ram_mib=_UML_MIB)


def qemu_boot() -> tuple[str, Boot]:
    """A QEMU that can have our balloon."""
    program, parts = find_qemu(generic=True), find_linux()

    def boot(folder: Path, balloon: Path) -> Patient:
        device = "vhost-user-test-device-pci,chardev=balloon,virtio-id=5,num_vqs=5,vq_size=128,config_size=16"
        words = ["-chardev", f"socket,id=balloon,path={balloon}", "-device", device]
        return qemu_patient(program, parts, folder, words, ram_mib=_QEMU_MIB, reboots=True)

    return f"QEMU {program.version}", boot


class Tenant(Actor):
    """One VM's life.

    Attributes:
        injected: its faults.
        books: at the end, once it has come to that.
    """

    books: Books | None = None
    _vm: Patient | None = None

    def __init__(self, name: str, yard: Yard, boot: tuple[str, Boot], seed: str, faults: Sequence[Injected]) -> None:
        """Do nothing yet; its faults are in the order of time."""
        super().__init__(name, yard)
        self.kind, self._boot = boot
        self._rng, self._boots = random.Random(seed), 0
        self.injected, self._faults = faults, list(faults)
        self._folder = yard.folder / name
        self._folder.mkdir()

    def act(self) -> None:
        """Come and go until the shift is over; then show the books."""
        timetable = self.yard.timetable
        timetable.wait(self._rng.uniform(0, timetable.seconds(1)))
        while True:
            self._vm = self._boot(self._folder, self.yard.socket(self.name))
            with self._vm as vm:
                self._has_booted(vm, self.kind)
                self._stay(vm)
                if timetable.over.is_set():
                    self.books = self._end(vm)
                    return
                self._go(vm)
            timetable.wait(timetable.gap_s(self._rng))

    def kill(self) -> None:
        """End its VM, if that still runs."""
        if self._vm is not None:
            self._vm.kill()

    def _has_booted(self, vm: Patient, how: str) -> None:
        vm.run(f"echo {_ORDER} >/sys/module/page_reporting/parameters/page_reporting_order")
        self._boots += 1
        self.yard.count(f"booted: {how}")

    def _stay(self, vm: Patient) -> None:
        bursts = self._rng.randint(*_STAY_BURSTS)
        while bursts > 0 or self._faults:
            if not self.yard.timetable.wait(min(self.yard.timetable.gap_s(self._rng), self._fault_in_s())):
                return
            if self._fault_in_s() <= 0:
                self._have(vm, self._faults.pop(0))
                continue
            bursts -= 1
            match self._rng.choices(("burst", "burst with a target", "reboot"), (6, 1, 1))[0]:
                case "reboot":
                    vm.reboot()
                    self._has_booted(vm, f"{self.kind}, again in the same process")
                case deed:
                    self._burst(vm, with_target=deed != "burst")
                    self.yard.count(deed)

    def _fault_in_s(self) -> float:
        return self._faults[0].due_s - time.monotonic() if self._faults else float("inf")

    def _burst(self, vm: Patient, *, with_target: bool) -> None:
        if with_target:
            self.yard.ask("set", self.name, target_bytes=vm.ram_bytes - _TARGET_LESS)
        vm.run(fill(self._rng.randint(*_BURST_MIB)))
        self.yard.timetable.wait(self._rng.uniform(0.5, 5))
        vm.run("rm /mnt/fill")
        if with_target:
            self.yard.ask("set", self.name, no_target=True)
            self._have_all_back()

    def _have_all_back(self) -> None:
        """Wait until nothing is in the balloon, so that what is done next does not meet a target on its way."""
        end_s = time.monotonic() + SETTLE_MAX_S
        while self.yard.timetable.wait(0.1):
            held = self.yard.ask("show", self.name)["guests"][0]["balloon_bytes"]
            if held == 0:
                return
            assert time.monotonic() < end_s, f"{format_size(held)} stay in the balloon of {self.name}"

    def _have(self, vm: Patient, injected: Injected) -> None:
        """Have a fault for as long as it lasts."""
        timetable = self.yard.timetable
        if injected.fault is KEPT:
            self.yard.ask("inhibit", self.name)
            with injected.going_on():
                vm.run(f"{fill(_FAULT_MIB)}; rm /mnt/fill")
                timetable.wait(timetable.seconds(injected.fault.lasts_min))
                self.yard.ask("uninhibit", self.name)
                vm.reboot()  # what was reported meanwhile is not reported again
        else:
            end_s = time.monotonic() + timetable.seconds(injected.fault.lasts_min)
            with injected.going_on():
                while time.monotonic() < end_s and timetable.wait(_LINUX_DELAY_S):
                    vm.run(fill(_FAULT_MIB))
                    timetable.wait(_LINUX_DELAY_S / 2)
                    vm.run("rm /mnt/fill")
        if injected.fault is KEPT:
            self._has_booted(vm, f"{self.kind}, again in the same process")
        self.yard.count(injected.fault.name)

    def _go(self, vm: Patient) -> None:
        if self._rng.random() < 0.5:
            vm.power_off()
            self.yard.count("switched itself off")
        else:
            self.yard.count("killed")  # as the block ends

    def _end(self, vm: Patient) -> Books:
        vm.run(f"{fill(_BURST_MIB[0])}; rm /mnt/fill")
        vm.settled_bytes(quiet_s=_QUIET_S)
        command = [*PAGETIDE, "ctl", "show", self.name, "--json", "--control", str(self.yard.control)]
        shown = json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=SETTLE_MAX_S).stdout
        )
        return books_of(self.name, self.kind, self._boots, shown, vm.run("cat /proc/meminfo"), vm.held_bytes())
