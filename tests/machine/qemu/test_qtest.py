"""The qtest protocol: lines into answers, whatever pieces they come in."""

import socket
import threading

import pytest

from pagetide.machine.qemu.qtest import Lines, Qtest, QtestError


def test_answers_come_without_their_ok() -> None:
    """An answer's value is what follows OK; a bare OK is an empty answer; interrupts are counted."""
    lines = Lines()
    lines.receive(b"IRQ raise 11\nOK 0x1")
    assert lines.next_answer() is None
    lines.receive(b"234\nOK\n")
    assert lines.next_answer() == "0x1234"
    assert lines.next_answer() == ""
    assert lines.next_answer() is None
    assert lines.interrupts == 1


def test_interrupts_are_taken_once_and_lowering_is_none() -> None:
    """What was raised since the last look is counted, whether it came alone or beside an answer; an end is an error."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        qtest = Qtest(ours)
        theirs.sendall(b"IRQ raise 11\nIRQ lower 11\nIRQ raise 11\n")
        assert qtest.take_interrupts() == 2
        assert qtest.take_interrupts() == 0
        theirs.sendall(b"IRQ raise 11\nOK 0x1\n")
        assert qtest.read(0, 1) == 1
        assert qtest.take_interrupts() == 1
        theirs.close()
        with pytest.raises(QtestError, match="ended"):
            qtest.take_interrupts()


def test_a_refused_command_is_an_error_with_qemus_words() -> None:
    """Anything but OK is an error."""
    lines = Lines()
    lines.receive(b"FAIL Unknown command 'outx'\n")
    with pytest.raises(QtestError, match="Unknown command"):
        lines.next_answer()


def test_commands_are_qemus() -> None:
    """Port and memory accesses are written as QEMU reads them."""
    ours, theirs = socket.socketpair()
    said: list[bytes] = []

    def answer() -> None:
        for _ in range(4):
            said.append(theirs.recv(100))
            theirs.sendall(b"OK 0x2a\n")

    thread = threading.Thread(target=answer)
    thread.start()
    with theirs:
        qtest = Qtest(ours)
        qtest.port_out(0xCF8, 0x80000000)
        assert qtest.port_in(0xCFC) == 42
        qtest.write(0xE0000000, 7, 2)
        assert qtest.read(0xE0000000, 8) == 42
        qtest.close()
        thread.join()
    assert said == [b"outl 0xcf8 0x80000000\n", b"inl 0xcfc\n", b"writew 0xe0000000 0x7\n", b"readq 0xe0000000\n"]


def test_a_qemu_that_is_silent_or_gone_is_an_error() -> None:
    """No answer in time, and the end of the connection, are errors that name the command."""
    ours, theirs = socket.socketpair()
    qtest = Qtest(ours, timeout_s=0.01)
    with pytest.raises(QtestError, match="did not answer"):
        qtest.ask("clock_step")
    theirs.close()
    with pytest.raises(QtestError, match="ended"):
        qtest.ask("clock_step")
    qtest.close()
