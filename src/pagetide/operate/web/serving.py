"""Answering at a socket that listens already, in a thread of its own."""

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from pagetide.operate.web.answers import Answers, Looks
from pagetide.operate.web.bounded_client import BoundedClient
from pagetide.operate.web.shown import Shown
from pagetide.operate.web.vital_thread import start_vital

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

    async def serve() -> None:
        looks.begin()
        await server_of(Answers(shown, looks, control, token)).serve(sockets=[listener])

    start_vital(lambda: asyncio.run(serve()))


def server_of(answers: Answers) -> uvicorn.Server:
    """What answers so; whatever clients do wrong is not logged."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        answers.application, log_config=None, access_log=False, lifespan="off", http=BoundedClient, ws="none",
        loop="asyncio", server_header=False, timeout_keep_alive=5, timeout_graceful_shutdown=_END_S,
    )  # fmt: skip
    return uvicorn.Server(config)
