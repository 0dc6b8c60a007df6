"""The error by which one guest's end reaches the loop that serves all of them."""


class GuestGoneError(Exception):
    """The guest is to be given up; the message says why."""
