"""Clients of the page that say nothing, too little, or no HTTP, or never listen."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from pagetide.operate.endpoint_process import Address, listen
from pagetide.operate.web import bounded_client
from pagetide.operate.web.answers import Answers, Looks
from pagetide.operate.web.bounded_client import BoundedClient
from pagetide.operate.web.run_shown import RunBegun, RunShown
from pagetide.operate.web.serving import server_of

TIMEOUT_S = 20.0
CLIENTS_MAX = 4

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def _bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_client, "CLIENTS_MAX", CLIENTS_MAX)
    monkeypatch.setattr(bounded_client, "REQUEST_MAX_S", 1.0)


class Served:
    """The page of a run, answered in this loop."""

    def __init__(self, port: int, looks: Looks) -> None:
        self.looks, self._port = looks, port
        self._clients: list[asyncio.StreamWriter] = []

    async def client(self, said: bytes = b"") -> Client:
        """Connect, and say this much."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._clients.append(writer)
        writer.write(said)
        return reader, writer

    def close(self) -> None:
        """Hang up."""
        for writer in self._clients:
            writer.close()


@contextlib.asynccontextmanager
async def served(name: str = "a run") -> AsyncIterator[Served]:
    """A page that is answered until the end of the block."""
    looks = Looks()
    shown = RunShown(looks.tell)
    shown.hear(RunBegun(name, 1, 0.0))
    looks.begin()
    listener = listen(Address("127.0.0.1", 0), beside_another=False)
    server = server_of(Answers(shown, looks, None, str))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    page = Served(listener.getsockname()[1], looks)
    try:
        yield page
    finally:
        page.close()
        server.should_exit = True
        await serving


async def told_until_the_end(client: Client) -> bytes:
    """What it is told until it loses its connection, which must be in time."""
    try:
        return await asyncio.wait_for(client[0].read(), TIMEOUT_S)
    except ConnectionError:
        return b""


ASKS = b"GET /api/looks HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def test_who_says_nothing_loses_its_place_and_takes_nobody_elses() -> None:
    """At the first request and at the next; who listens stays; beyond so many nobody gets in."""

    async def try_it() -> None:
        async with served() as page:
            listening, _ = await page.client(ASKS)
            assert b"a run" in await asyncio.wait_for(listening.readuntil(b"\n\n\r\n"), TIMEOUT_S)
            again, writer = await page.client(ASKS.replace(b"looks", b"none"))
            await asyncio.wait_for(again.readuntil(b"\r\n\r\nNot Found"), TIMEOUT_S)
            writer.write(ASKS[:7])
            odd = [await page.client(said) for said in (b"", ASKS[:-2])]
            assert await told_until_the_end(await page.client(ASKS)) == b""
            assert [await told_until_the_end(client) for client in odd] == [b"", b""]
            await told_until_the_end((again, writer))
            page.looks.tell()
            assert b"a run" in await asyncio.wait_for(listening.readuntil(b"\n\n\r\n"), TIMEOUT_S)

    asyncio.run(try_it())


def test_who_asks_and_never_reads_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that no buffer has room for is not waited with for ever; who reads a little stays."""
    lost = asyncio.Event()
    right = BoundedClient.connection_lost

    def connection_lost(self: BoundedClient, exc: Exception | None) -> None:
        right(self, exc)
        lost.set()

    monkeypatch.setattr(bounded_client, "STALLED_MAX_S", 0.5)
    monkeypatch.setattr(BoundedClient, "connection_lost", connection_lost)

    async def try_it() -> None:
        async with served("a run" * (8 << 20)) as page:
            await page.client(ASKS)
            await asyncio.wait_for(lost.wait(), TIMEOUT_S)
            async with asyncio.timeout(TIMEOUT_S):
                while page.looks.watchers:
                    await asyncio.sleep(0.01)
            lost.clear()
            monkeypatch.setattr(bounded_client, "STALLED_MAX_S", TIMEOUT_S)
            reader, _ = await page.client(ASKS)
            for _ in range(40):
                assert len(await asyncio.wait_for(reader.readexactly(1 << 20), TIMEOUT_S)) == 1 << 20
            assert not lost.is_set()

    asyncio.run(try_it())


def test_what_is_no_http_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """Else anybody could fill the log."""

    async def try_it() -> None:
        async with served() as page:
            reader, _ = await page.client(b"\0\1\2\r\n\r\n")
            assert b"400" in await asyncio.wait_for(reader.readline(), TIMEOUT_S)

    with caplog.at_level(logging.INFO):
        asyncio.run(try_it())
    assert caplog.records == []


def test_a_look_while_the_one_before_is_sent_is_told_next() -> None:
    """Whoever waits is behind by what it has not been told, whenever that came."""

    async def try_it() -> None:
        looks = Looks()
        looks.begin()
        looks.tell()
        assert await looks.wait_beyond(0, TIMEOUT_S) == 1
        waiting = asyncio.create_task(looks.wait_beyond(1, TIMEOUT_S))
        looks.tell()
        looks.tell()
        assert await waiting == 3
        assert await asyncio.wait_for(looks.wait_beyond(1, TIMEOUT_S), 1.0) == 3
        assert await looks.wait_beyond(3, 0.0) == 3

    asyncio.run(try_it())
