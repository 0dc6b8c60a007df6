"""QEMU's monitor, in which a program tells a running QEMU what to do: `qemu.qmp`, asked one command at a time.

The QEMU project's package speaks the protocol (QEMU's docs/interop/qmp-spec) on an event loop. Here each command runs
that loop until its answer is there, so what QEMU says in between (events) waits in the socket, and is then dropped. The
package and the event loop are loaded where there is a monitor to ask: commands that have none start without them.
"""

import contextlib
import logging
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())  # what goes wrong is raised, and said once


class QmpError(Exception):
    """QEMU refused a command, did not answer, or ended."""


class Qmp:
    """A connection to QEMU's monitor, made with the first command. It owns the socket."""

    def __init__(self, monitor: socket.socket | Path, *, timeout_s: float = 10.0) -> None:
        """Of a connected socket, or of the path of one that QEMU listens at; a longer silence is an error."""
        import asyncio

        from pagetide.machine.qemu.greeted_client import GreetedClient

        self._monitor = monitor
        self._timeout_s = timeout_s
        self._client = GreetedClient()
        self._runner = asyncio.Runner()
        self._is_greeted = False

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        from qemu.qmp import QMPError

        if self._is_greeted:
            with contextlib.suppress(QMPError, EOFError, OSError):  # TimeoutError is an OSError
                self._run(self._client.disconnect())
            self._is_greeted = False
        self._runner.close()
        if isinstance(self._monitor, socket.socket):
            self._monitor.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """Give one command; what it returns.

        Raises:
            QmpError: QEMU refused it, did not answer, or ended; there is no monitor, or another program holds it.
        """
        from qemu.qmp import ExecuteError, QMPError

        if not self._is_greeted:
            self._connect()
        self._client.events.clear()
        try:
            return self._run(self._client.execute(command, arguments))
        except ExecuteError as error:
            raise QmpError(f"QEMU answers {command!r} with {str(error)!r}") from error
        except TimeoutError as error:
            raise QmpError(f"QEMU did not answer {command!r} within {self._timeout_s:g} s") from error
        except (QMPError, EOFError, OSError) as error:
            raise QmpError(f"QEMU ended at {command!r}") from error

    def _connect(self) -> None:
        from qemu.qmp import ConnectError
        from qemu.qmp.error import ProtocolError

        monitor = self._monitor if isinstance(self._monitor, socket.socket) else str(self._monitor)
        try:
            self._run(self._client.connect(monitor))
        except TimeoutError as error:
            raise QmpError(
                f"QEMU's monitor gave no greeting within {self._timeout_s:g} s; it serves one program at a time"
            ) from error
        except ConnectError as error:
            if isinstance(error.exc, ProtocolError):  # such as its monitor for people
                raise QmpError("what answers there is no QMP monitor (-qmp, or -mon with mode=control)") from error
            raise QmpError(f"QEMU's monitor cannot be reached: {str(error.exc) or 'it ended'}") from error
        self._is_greeted = True

    def _run(self, asked: Coroutine[Any, Any, Any]) -> Any:
        import asyncio

        return self._runner.run(asyncio.wait_for(asked, self._timeout_s))
