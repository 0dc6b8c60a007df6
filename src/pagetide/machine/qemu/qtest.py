"""QEMU's qtest protocol: lines of text by which a program plays the CPU of a machine whose CPU is stopped.

Prior art: QEMU's own tests/qtest/libqtest.c; the commands are described at the head of system/qtest.c. `Lines` has no
I/O: text in, answers out. `Qtest` asks over a socket, one command at a time.
"""

import select
import socket


class QtestError(Exception):
    """QEMU refused a command, broke the protocol, did not answer, or ended."""


class Lines:
    """Puts answers together from what a stream gives; what QEMU says unasked (`IRQ …`) is only counted.

    Attributes:
        interrupts: how many times an interrupt line was raised.
    """

    interrupts: int

    def __init__(self) -> None:
        self.interrupts = 0
        self._text = b""

    def receive(self, data: bytes) -> None:
        """Take what came."""
        self._text += data

    def next_answer(self) -> str | None:
        """The next answer without its `OK`, or None until a whole line has come.

        Raises:
            QtestError: QEMU refused the command.
        """
        while b"\n" in self._text:
            line, self._text = self._text.split(b"\n", 1)
            words = line.decode(errors="replace").split(maxsplit=1)
            if not words or words[0] == "IRQ":
                self.interrupts += words[1:] != [] and words[1].startswith("raise")
                continue
            if words[0] != "OK":
                raise QtestError(f"QEMU answers {line.decode(errors='replace')!r}")
            return words[1] if len(words) > 1 else ""
        return None


class Qtest:
    """A connection to QEMU's qtest socket. It owns the socket.

    Numbers are those of the guest's CPU: port and memory accesses are little-endian, of 1, 2, 4 or 8 bytes.
    """

    def __init__(self, sock: socket.socket, *, timeout_s: float = 10.0) -> None:
        """Take over a connected socket; an answer that takes longer than the timeout is an error."""
        self._socket = sock
        self._lines = Lines()
        self._timeout_s = timeout_s

    def fileno(self) -> int:
        """For selectors: readable when QEMU has ended."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection; QEMU goes on."""
        self._socket.close()

    def ask(self, command: str) -> str:
        """Give one command; its answer.

        Raises:
            QtestError: QEMU refused it, did not answer, or ended.
        """
        self._send(command)
        return self._answer(command)

    def _send(self, *commands: str) -> None:
        try:
            self._socket.sendall("".join(f"{command}\n" for command in commands).encode())
        except OSError as error:
            raise QtestError(f"QEMU has ended ({commands[0]!r})") from error

    def _answer(self, command: str) -> str:
        while (answer := self._lines.next_answer()) is None:
            if not select.select([self._socket], [], [], self._timeout_s)[0]:
                raise QtestError(f"QEMU did not answer {command!r} within {self._timeout_s:g} s")
            self._lines.receive(self._receive(command))
        return answer

    def _receive(self, wanted: str) -> bytes:
        try:
            data = self._socket.recv(4096)
        except ConnectionResetError:
            data = b""
        if not data:
            raise QtestError(f"QEMU ended at {wanted!r}")
        return data

    def intercept_interrupts(self) -> None:
        """Have QEMU tell of interrupts that reach its I/O APIC, instead of its CPU."""
        self.ask("irq_intercept_in ioapic")

    def take_interrupts(self) -> int:
        """How many interrupts were raised since the last look; waits for nothing.

        Raises:
            QtestError: QEMU has ended.
        """
        while select.select([self._socket], [], [], 0)[0]:
            self._lines.receive(self._receive("interrupts"))
            answer = self._lines.next_answer()
            assert answer is None, "every answer was waited for"
        interrupts, self._lines.interrupts = self._lines.interrupts, 0
        return interrupts

    def port_out(self, port: int, value: int) -> None:
        """Write 32 bits to an I/O port."""
        self.ask(f"outl {port:#x} {value:#x}")

    def port_in(self, port: int) -> int:
        """Read 32 bits from an I/O port."""
        return int(self.ask(f"inl {port:#x}"), 16)

    def write(self, address: int, value: int, size_bytes: int) -> None:
        """Write to guest-physical memory, device registers included."""
        self.ask(f"write{_SUFFIX[size_bytes]} {address:#x} {value:#x}")

    def write_at_once(self, *writes: tuple[int, int, int]) -> None:
        """Make these writes (address, value, bytes) one right after the other: QEMU does nothing else in between."""
        commands = [f"write{_SUFFIX[size_bytes]} {address:#x} {value:#x}" for address, value, size_bytes in writes]
        self._send(*commands)
        for command in commands:
            self._answer(command)

    def read(self, address: int, size_bytes: int) -> int:
        """Read from guest-physical memory, device registers included."""
        return int(self.ask(f"read{_SUFFIX[size_bytes]} {address:#x}"), 16)


_SUFFIX = {1: "b", 2: "w", 4: "l", 8: "q"}
