"""The error by which one guest's end reaches the loop that serves all of them."""


class GuestGoneError(Exception):
    """The guest is to be given up; the message says why.

    Attributes:
        held_up_s: for how long it held up the loop before this action, or without using its CPU time.
        left: whether it went by itself, as whoever is killed does, and nobody has given it up.
    """

    held_up_s: float
    left: bool

    def __init__(self, reason: str, *, held_up_s: float = 0.0, left: bool = False) -> None:
        super().__init__(reason)
        self.held_up_s, self.left = held_up_s, left
