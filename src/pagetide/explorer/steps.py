"""The package's own steps in an explored machine: who runs them is in actors.py and vcpu.py."""

from typing import TYPE_CHECKING, Any

from pagetide.explorer.balloon import Config
from pagetide.explorer.ground import Paused, system_call

if TYPE_CHECKING:
    from pagetide.explorer.machine import ExploredMachine

MODULES = ("guest.worker", "guest.in_flight", "guest.vcpu_loop")
"""What is needed of the explored world, and for a balloon guest.balloon_worker."""


def reporting_of(machine: "ExploredMachine", modules: dict[str, Any]) -> Any:
    """Who reports, and with what, over the explored machine's bells."""

    class Reporting(modules["guest.worker"].Reporting):  # type: ignore[misc]
        def ring(self) -> Paused:
            yield from system_call(machine.control)
            machine.glue.rung = True

        def tell(self) -> Paused:
            yield from ()
            for actor in (*machine.vcpus, machine.worker):
                actor.notified = True

    reporting = Reporting(machine.design, machine.driver)
    reporting.ring_full = machine.scenario.ring_full
    return reporting


def worker_of(machine: "ExploredMachine", modules: dict[str, Any]) -> Any:
    """The worker's steps."""
    if machine.balloons:
        return modules["guest.balloon_worker"].BalloonWorker(machine.reporting, machine.design, Config(machine))
    return modules["guest.worker"].Worker(machine.reporting)


def in_flight_of(machine: "ExploredMachine", modules: dict[str, Any], zone: Any) -> Any:
    """What of the guest's free memory the host has."""
    kinds = modules["guest.in_flight"]
    if machine.takes_frames:
        return kinds.TakenByHost(zone)
    if machine.balloons:
        return kinds.InBalloon(zone, machine.design, machine.reporting, settled=None)
    return kinds.Isolated(zone, machine.reporting)
