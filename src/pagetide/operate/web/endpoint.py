"""The process of the daemon's page, started by the daemon (endpoint_process.py) with a listening socket.

It ends when its standard input does, which is when the daemon ends; or when a thread of it fails, and is started anew.
"""

import functools
import signal
import socket
import sys
import threading
from pathlib import Path

import msgspec

from pagetide.operate.watch.all_vms import Watching
from pagetide.operate.watch.host_vms import HostVms
from pagetide.operate.web.answers import Looks
from pagetide.operate.web.recorder import Recorder
from pagetide.operate.web.serving import serve_beside
from pagetide.operate.web.told_lines import Event, Greeting
from pagetide.operate.web.vital_thread import start_vital


class Heard:
    """What the daemon tells.

    Attributes:
        token: what who may change anything has to know.
    """

    token: str

    def __init__(self, recorder: Recorder) -> None:
        """Have events kept there."""
        self.token = ""
        self._recorder = recorder

    def hear(self, line: bytes) -> None:
        """Take a line: the first is a greeting, the others are events."""
        try:
            if line.startswith(b'{"token"'):
                self.token = msgspec.json.decode(line, type=Greeting).token
            else:
                self._recorder.note(msgspec.json.decode(line, type=Event))
        except msgspec.MsgspecError:  # cut off by the daemon's end
            return


def main(words: list[str]) -> None:
    """Answer until standard input ends."""
    fd, control_path, _ = words
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the daemon, which answers what it has taken first
    control, looks, over = Path(control_path), Looks(), threading.Event()
    recorder = Recorder(Watching(control, HostVms()), control, on_look=looks.tell)
    heard = Heard(recorder)
    serve_beside(socket.socket(fileno=int(fd)), recorder, looks, control, lambda: heard.token)
    recording = start_vital(functools.partial(recorder.run, over))
    for line in sys.stdin.buffer:
        heard.hear(line)
    over.set()
    recording.join()


if __name__ == "__main__":
    main(sys.argv[1:])
