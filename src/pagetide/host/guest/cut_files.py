"""A file of the guest's that is cut short while it is in use: what was read since then is not what the guest wrote."""

from pagetide import bus_error
from pagetide.host.guest.gone import GuestGoneError
from pagetide.host.guest.session import VhostUserSession
from pagetide.host.memory.guest_memory import GuestMemory


class CutFiles:
    """Finds that one of a guest's files was cut short."""

    def __init__(self, memory: GuestMemory, session: VhostUserSession) -> None:
        """Look at these.

        Args:
            memory: the guest's.
            session: the guest's, which has its in-flight memory.
        """
        self._memory = memory
        self._session = session
        self._fault_count = bus_error.fault_count()
        self._faults = self._fault_count.value

    @property
    def faults(self) -> int:
        """How many accesses had gone beyond the end of a file, anybody's, when this was looked into last."""
        return self._faults

    def check(self) -> None:
        """Look, if anybody's file was cut short since the last time.

        Raises:
            GuestGoneError: one of this guest's was.
        """
        faults = self._fault_count.value
        if faults == self._faults:
            return
        self._faults = faults
        if self._memory.was_cut or self._session.effects.inflight.was_cut:
            raise GuestGoneError("its memory file was cut short while it was in use, or has no huge page left")
