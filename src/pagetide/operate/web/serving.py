"""Answering at a socket that listens already, in a thread of its own."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from pagetide.operate.web.answers import Answers, Looks
from pagetide.operate.web.shown import Shown
from pagetide.operate.web.vital_thread import start_vital

CLIENTS_MAX = 64
"""Most connections at once; who comes beyond that is told to come later."""

_END_S = 1


def serve_beside(
    listener: socket.socket, shown: Shown, looks: Looks, control: Path | None = None, token: Callable[[], str] = str
) -> None:
    """Answer until the process ends.

    Args:
        listener: where.
        shown: what is shown.
        looks: told of each look by `shown`.
        control: the daemon's control socket, if there is a daemon.
        token: what who may change anything has to know; empty if nobody may.
    """
    serving = _serve(listener, shown, looks, control, token)
    start_vital(lambda: asyncio.run(serving))


async def _serve(
    listener: socket.socket, shown: Shown, looks: Looks, control: Path | None, token: Callable[[], str]
) -> None:
    looks.begin()
    config = uvicorn.Config(
        Answers(shown, looks, control, token).application, log_config=None, access_log=False, lifespan="off",
        http="h11", ws="none", loop="asyncio", server_header=False, limit_concurrency=CLIENTS_MAX,
        timeout_keep_alive=5, timeout_graceful_shutdown=_END_S,
    )  # fmt: skip
    await uvicorn.Server(config).serve(sockets=[listener])
