"""Clients that no Prometheus is: ones that never come to an end, and ones that ask for what there is not."""

import select
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagetide.operate.endpoint_process import Address, listen
from pagetide.operate.metrics import endpoint, scraping
from pagetide.operate.metrics.endpoint import Endpoint
from pagetide.operate.metrics.scraping import Scraping

REQUEST_MAX_S = 0.3
TRIED_S = 30.0
"""Below the silence for which a client is hung up on in any case, as it is here."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """Where scrapes are answered, for a daemon without guests."""
    monkeypatch.setattr(scraping, "ask_daemon", lambda *_: [])
    monkeypatch.setattr(endpoint._Handler, "timeout", 2 * TRIED_S)
    monkeypatch.setattr(Endpoint, "daemon_threads", False)  # so that its end waits for those of clients
    listener = listen(Address("127.0.0.1", 0), beside_another=False)
    server = Endpoint(listener, Scraping(tmp_path / "control", 1))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield listener.getsockname()[1]
    server.shutdown()
    thread.join()
    server.server_close()


def _is_hung_up_on(client: socket.socket, said: bytes) -> bool:
    """Whether a client that says so much more has lost its connection, or does within a moment."""
    try:
        client.sendall(said)
        readable, _, _ = select.select([client], [], [], REQUEST_MAX_S / 10)
        return bool(readable) and client.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("said", [b"x", b""], ids=["trickles", "is silent"])
def test_a_client_that_never_ends_its_request_loses_its_place(
    port: int, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte by byte it would never be silent for long; and one that says nothing has no more time than that."""
    monkeypatch.setattr(endpoint, "REQUEST_MAX_S", REQUEST_MAX_S)
    end_s = time.monotonic() + TRIED_S
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /")
        while not _is_hung_up_on(client, said):
            assert time.monotonic() < end_s, "it still has its place"


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=a",
        "text/plain; version=1.x",
        "application/openmetrics-text; version=.;q=1",
    ],
)
def test_a_version_that_is_none_is_answered_with_plain_text(port: int, accept: str) -> None:
    """As who asks for nothing is."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert b"# TYPE process_resident_memory_bytes gauge" in answer.read()
