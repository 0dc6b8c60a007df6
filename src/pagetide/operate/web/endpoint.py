"""The process of the page, started by the daemon (endpoint_process.py) with a listening socket.

It ends when its standard input does, which is when the daemon ends.
"""

import asyncio
import signal
import socket
import sys
import threading
from pathlib import Path

import msgspec
import uvicorn

from pagetide.operate.watch.all_vms import Watching
from pagetide.operate.web.answers import Answers, Looks
from pagetide.operate.web.recorder import Recorder
from pagetide.operate.web.told_lines import Event, Greeting

CLIENTS_MAX = 64
"""Most connections at once; who comes beyond that is told to come later."""

_END_S = 1


class Page:
    """The process's parts."""

    def __init__(self, control: Path) -> None:
        """Look at the guests of the daemon at this control socket; nothing runs yet."""
        self._looks = Looks()
        self._token = ""
        self.recorder = Recorder(Watching(control, None), control, on_look=self._looks.tell)
        self._control = control

    async def serve(self, listener: socket.socket) -> None:
        """Answer at a listening socket."""
        self._looks.begin()
        answers = Answers(self.recorder, self._looks, self._control, lambda: self._token)
        config = uvicorn.Config(
            answers.application, log_config=None, access_log=False, lifespan="off", http="h11", ws="none",
            loop="asyncio", server_header=False, limit_concurrency=CLIENTS_MAX, timeout_keep_alive=5,
            timeout_graceful_shutdown=_END_S,
        )  # fmt: skip
        await uvicorn.Server(config).serve(sockets=[listener])

    def hear(self, line: bytes) -> None:
        """Take a line from the daemon: the first is a greeting, the others are events."""
        try:
            if line.startswith(b'{"token"'):
                self._token = msgspec.json.decode(line, type=Greeting).token
            else:
                self.recorder.note(msgspec.json.decode(line, type=Event))
        except msgspec.MsgspecError:  # cut off, since there was no room in the pipe
            return


def main(words: list[str]) -> None:
    """Answer until standard input ends."""
    fd, control, _ = words
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the daemon, which answers what it has taken first
    page = Page(Path(control))
    over = threading.Event()
    listener = socket.socket(fileno=int(fd))
    threading.Thread(target=asyncio.run, args=(page.serve(listener),), daemon=True).start()
    recording = threading.Thread(target=page.recorder.run, args=(over,))
    recording.start()
    for line in sys.stdin.buffer:
        page.hear(line)
    over.set()
    recording.join()


if __name__ == "__main__":
    main(sys.argv[1:])
