"""The process of a run's page, started by `pagetide run --web` with a listening socket; it ends with the run."""

import signal
import socket
import sys

import msgspec

from pagetide.operate.web.answers import Looks
from pagetide.operate.web.run_shown import RunShown, Told
from pagetide.operate.web.serving import serve_beside


def main(words: list[str]) -> None:
    """Answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the run
    looks = Looks()
    shown = RunShown(looks.tell)
    serve_beside(socket.socket(fileno=int(words[0])), shown, looks)
    decoder = msgspec.json.Decoder(Told)
    for line in sys.stdin.buffer:
        try:
            told = decoder.decode(line)
        except msgspec.MsgspecError:  # cut off by the run's end
            continue
        shown.hear(told)


if __name__ == "__main__":
    main(sys.argv[1:])
