"""The log of events: lines on standard error, or entries of the journal, read here by a socket of our own."""

import array
import contextlib
import fcntl
import io
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagetide.commands.daemon.event_log import JournalHandler, log_handler


class Journal:
    """A socket that takes entries."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def entry(self) -> dict[str, str]:
        """The next one, by its fields."""
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        if ancillary:
            assert data == b""
            fd = array.array("i", ancillary[0][2])[0]
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            assert seals == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            data = os.pread(fd, 1 << 24, 0)
            os.close(fd)
        return fields_of(data)


def fields_of(data: bytes) -> dict[str, str]:
    """What an entry says, as the protocol has it."""
    found, stream = {}, io.BytesIO(data)
    while line := stream.readline():
        name, equals, value = line.removesuffix(b"\n").partition(b"=")
        if not equals:
            value = stream.read(int.from_bytes(stream.read(8), "little"))
            assert stream.read(1) == b"\n"
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal."""
    made = Journal(tmp_path / "journal")
    yield made
    made.socket.close()


class StandardError:
    """A stream to the journal, as systemd makes it: whoever writes more than it takes has to wait."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)

    def lines(self) -> list[str]:
        """What was written since."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                data += self.ours.recv(1 << 20)
        return data.decode().splitlines()


@pytest.fixture
def otherwise() -> Iterator[StandardError]:
    """What goes to standard error."""
    made = StandardError()
    yield made
    made.ours.close()
    made.theirs.close()


@pytest.fixture
def log(journal: Journal, otherwise: StandardError) -> Iterator[logging.Logger]:
    """A log that goes to the journal, and otherwise to lines."""
    handler = JournalHandler(otherwise.theirs.fileno(), journal.path)
    logger = logging.Logger("pagetide.test", logging.DEBUG)
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_an_event_has_fields(journal: Journal, log: logging.Logger) -> None:
    """Guest, event and figures by name, a message that says both, and the level as syslog counts it."""
    log.info("account", extra={"guest": "vm1", "figures": {"returned_bytes": 4096, "of a kind": 1}})
    assert journal.entry() == {
        "MESSAGE": "vm1: account", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "pagetide", "GUEST": "vm1",
        "EVENT": "account", "RETURNED_BYTES": "4096", "OF_A_KIND": "1",
    }  # fmt: skip
    levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
    for level in levels:
        log.log(level, "met %s", "it")
    entries = [journal.entry() for _ in levels]
    assert [entry["PRIORITY"] for entry in entries] == ["7", "6", "4", "3", "3"]
    assert {(entry["MESSAGE"], entry["EVENT"], entry.get("GUEST")) for entry in entries} == {("met it", "met it", None)}


def test_lines_and_what_is_large_are_whole(journal: Journal, log: logging.Logger) -> None:
    """A guest's name cannot forge a field; a traceback keeps its lines; what no datagram holds goes as a file."""
    log.warning("attached", extra={"guest": "a\nPRIORITY=0"})
    entry = journal.entry()
    assert (entry["GUEST"], entry["PRIORITY"]) == ("a\nPRIORITY=0", "4")
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("met")
    assert journal.entry()["TRACEBACK"].splitlines()[-1] == "ValueError: no"
    large = "x" * (4 << 20)
    log.info(large)
    assert journal.entry()["EVENT"] == large


def test_what_the_journal_does_not_take_is_a_line(
    journal: Journal, log: logging.Logger, otherwise: StandardError
) -> None:
    """Nothing waits for a journal that is full, and nothing is lost."""
    count, lines = 0, otherwise.lines()
    while not lines:
        log.info("attached %s", count)
        count += 1
        lines = otherwise.lines()
    assert [line.partition(" ")[2] for line in lines] == [f'level=info event="attached {count - 1}"']
    assert [journal.entry()["EVENT"] for _ in range(count - 1)] == [f"attached {number}" for number in range(count - 1)]
    journal.path.unlink()
    log.error("gone")
    assert [line.partition(" ")[2] for line in otherwise.lines()] == ['level=error event="gone"']


def test_what_neither_takes_is_lost_and_counted(
    journal: Journal, log: logging.Logger, otherwise: StandardError
) -> None:
    """A journal that stands still holds nobody up; when it goes on, it hears how many events it missed."""
    for number in range(3000):
        log.info("attached %s %s", number, "x" * 500)
    found = len(otherwise.lines())
    with contextlib.suppress(BlockingIOError):
        while journal.entry():
            found += 1
    log.info("goes on")
    loss = journal.entry()
    assert (loss["EVENT"], loss["PRIORITY"]) == ("the journal did not take events", "4")
    assert int(loss["LOST_EVENTS"]) == 3000 - found > 0
    assert journal.entry()["EVENT"] == "goes on"


def test_only_a_standard_error_that_is_the_journals_is_left(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """JOURNAL_STREAM outlives a redirection: device and file number must be those of standard error."""
    with (tmp_path / "errors").open("w") as errors, (tmp_path / "others").open("w") as others:
        monkeypatch.setattr("sys.stderr", errors)
        for file, is_journal in ((errors, True), (others, False), (None, False)):
            status = None if file is None else os.fstat(file.fileno())
            named = {} if status is None else {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
            handler = log_handler(named, journal.path)
            assert isinstance(handler, JournalHandler) == is_journal
            handler.emit(logging.LogRecord("a", logging.INFO, __file__, 1, "listening", None, None))
            handler.close()
        assert journal.entry()["EVENT"] == "listening"
    assert (tmp_path / "errors").read_text().count('event="listening"') == 2
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not isinstance(log_handler({"JOURNAL_STREAM": "1:2"}), JournalHandler)
