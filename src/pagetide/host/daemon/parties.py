"""What is done for a party of the loop, whichever it is, when its rest is over or it was waited for long enough."""

from collections.abc import Hashable

from pagetide.host.daemon.control_socket import ControlClient, ControlSocket
from pagetide.host.daemon.guest_sockets import GuestSocket, GuestSockets
from pagetide.host.daemon.guests import Guests
from pagetide.host.guest.attached import AttachedGuest


def go_on(rested: Hashable, guests: Guests, sockets: GuestSockets, control: ControlSocket | None) -> None:
    """Hear somebody again whose rest is over."""
    match rested:
        case GuestSocket():
            sockets.go_on(rested)
        case ControlSocket():
            rested.listen()
        case ControlClient():
            assert control is not None, "it is one of its clients"
            control.attend(rested)
        case AttachedGuest():
            guests.go_on(rested)


def end_wait(party: Hashable, guests: Guests, control: ControlSocket | None) -> None:
    """Somebody was waited for long enough."""
    if isinstance(party, AttachedGuest):
        guests.attempt(party, party.end_wait)
    elif isinstance(party, ControlClient) and control is not None:
        control.end_wait(party)
