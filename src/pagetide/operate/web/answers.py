"""What the page's process answers: the page's own files, and what there is of guests as JSON."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pagetide.operate.answer import answer
from pagetide.operate.gather import GatherError, gather
from pagetide.operate.host.control import ask, decode_told
from pagetide.operate.picture import picture
from pagetide.operate.web.guard import HEADERS, may_change, may_have_looked, may_read
from pagetide.operate.web.shown import Shown

WATCHERS_MAX = 16
"""Most browsers that are told of each look."""

_FILES = {
    "index.html": "text/html; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "curves.js": "text/javascript; charset=utf-8",
    "page_map.js": "text/javascript; charset=utf-8",
    "vendored/uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "vendored/uPlot.min.css": "text/css; charset=utf-8",
}
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_SPAN_MAX_S = 86400.0
_WHY_COLUMNS = 100
_BODY_BYTES_MAX = 4096
_ALIVE_S = 15.0


class Looks:
    """Tells those who wait that there was another look; made and used in the loop of the answers.

    Attributes:
        count: how many looks it was told of.
        watchers: how many browsers are told.
    """

    count: int
    watchers: int

    def __init__(self) -> None:
        """Know of none."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self.count = self.watchers = 0

    def begin(self) -> None:
        """Belong to the loop that runs now."""
        self._loop = asyncio.get_running_loop()

    def tell(self) -> None:
        """There was one; from any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self.count += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_beyond(self, count: int, timeout_s: float) -> int:
        """How many there were: more than `count`, unless none comes within this time."""
        if self.count == count:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout_s)
        return self.count


class ChangeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the page may ask of the daemon when it may change something."""

    command: str
    guest: str
    target_bytes: int | None = None
    no_target: bool = False


CHANGES = frozenset({"set", "pause", "resume", "inhibit", "uninhibit"})
"""The commands that the page may give."""


class Answers:
    """The answers, as functions of requests."""

    def __init__(self, shown: Shown, looks: Looks, control: Path | None, token: Callable[[], str]) -> None:
        """Answer from what is shown; who knows the token may have the daemon change something."""
        self._shown, self._looks, self._control, self._token = shown, looks, control, token
        self._asking_why = asyncio.Lock()

    @property
    def application(self) -> Starlette:
        """All of it."""
        return Starlette(
            routes=[
                Route("/", self._index),
                Route("/static/{name:path}", self._file),
                Route("/api/looks", self._tell_looks),
                Route("/api/curves", self._curves),
                Route("/api/map", self._map),
                Route("/api/why", self._why),
                Route("/api/change", self._change, methods=["POST"]),
            ]
        )

    async def _index(self, request: Request) -> Response:
        return _file(request, "index.html")

    async def _file(self, request: Request) -> Response:
        return _file(request, request.path_params["name"])

    async def _tell_looks(self, request: Request) -> Response:
        """Each look as a server-sent event (HTML Living Standard, 9.2)."""
        if not may_read(request.headers):
            return _refusal()
        if self._looks.watchers >= WATCHERS_MAX:
            return _plain("So many browsers watch already that there is no place for another.\n", 503)
        headers = {**HEADERS, "X-Accel-Buffering": "no"}
        return StreamingResponse(self._looks_as_events(), media_type="text/event-stream", headers=headers)

    async def _looks_as_events(self) -> AsyncIterator[bytes]:
        self._looks.watchers += 1
        try:
            told, count = -1, self._looks.count
            while True:
                yield b"data: " + self._shown.message + b"\n\n" if count != told else b":\n\n"
                told, count = count, await self._looks.wait_beyond(count, _ALIVE_S)
        finally:
            self._looks.watchers -= 1

    async def _curves(self, request: Request) -> Response:
        """A guest's curves over so many seconds, and what the log says of it."""
        if not may_read(request.headers):
            return _refusal()
        try:
            span_s = min(max(1.0, float(request.query_params.get("span_s", "3600"))), _SPAN_MAX_S)
        except ValueError:
            return _plain("span_s is a number of seconds.\n", 400)
        name = request.query_params.get("guest", "")
        curves = await run_in_threadpool(self._shown.curves, name, span_s)
        return _json({**curves, "events": self._shown.events(name)})

    async def _map(self, request: Request) -> Response:
        """A guest's page map at a time."""
        if not may_read(request.headers):
            return _refusal()
        try:
            t_s = float(request.query_params.get("t_s", "inf"))
        except ValueError:
            return _plain("t_s is a time in seconds since 1970.\n", 400)
        return _json(await run_in_threadpool(self._shown.map_at, request.query_params.get("guest", ""), t_s))

    async def _why(self, request: Request) -> Response:
        """What `pagetide why` says of a guest: one at a time, since it looks at the VM."""
        if not may_have_looked(request.headers):
            return _refusal()
        async with self._asking_why:
            text, status = await run_in_threadpool(self._say_why, request.query_params.get("guest", ""))
        return _plain(text, status)

    def _say_why(self, guest: str) -> tuple[str, int]:
        vm = self._shown.asked_as(guest)  # anything else that `why` takes could be anybody's
        if self._control is None or vm is None:
            return "There is no such guest.\n", 404
        try:
            return picture(answer(gather(vm, None, self._control)), _WHY_COLUMNS) + "\n", 200
        except GatherError as error:
            return f"{error}\n", 200

    async def _change(self, request: Request) -> Response:
        """Have the daemon do something, for who knows the token."""
        if self._control is None or not may_change(request.headers, self._token()):
            return _refusal()
        try:
            body = b""
            async for piece in request.stream():
                body += piece
                if len(body) > _BODY_BYTES_MAX:
                    return _plain("That is too long.\n", 413)
            wanted = decode_told(body, ChangeRequest)
            if wanted.command not in CHANGES:
                return _plain(f"The page may not {wanted.command!r}.\n", 400)
            told = await run_in_threadpool(ask, self._control, msgspec.to_builtins(wanted))
        except msgspec.MsgspecError as error:
            return _plain(f"That is no request: {error}\n", 400)
        except OSError as error:
            return _plain(f"The daemon does not answer: {error}\n", 503)
        return _json({"error": told["error"], "note": told["note"]})


def _file(request: Request, name: str) -> Response:
    if not may_read(request.headers):
        return _refusal()
    if name not in _FILES:
        return _plain("There is no such file.\n", 404)
    data = (files("pagetide.operate.web") / "static" / name).read_bytes()
    return Response(data, headers=HEADERS, media_type=_FILES[name])


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), headers=HEADERS, media_type=_JSON)


def _plain(text: str, status: int) -> Response:
    return Response(text, status, headers=HEADERS, media_type=_TEXT)


def _refusal() -> Response:
    return _plain("Only this page may ask, by this machine's address.\n", 403)
