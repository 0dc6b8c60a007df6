"""A program for a guest: it takes huge pages, gives the second half of each back, and waits.

No program of busybox does that, so it is machine code (x86-64), in an ELF file that has nothing else.
"""

import struct

from tests.clinic.patient import Patient

_PAGE_BYTES = 2 << 20
_LOADED_AT = 0x400000
_PIECE_BYTES = 50


def start_huge_user(patient: Patient, pages: int) -> None:
    """Start it in the guest, and let it take that many huge pages of 2 MiB."""
    patient.run("echo always >/sys/kernel/mm/transparent_hugepage/enabled")
    program = _program(pages)
    for at in range(0, len(program), _PIECE_BYTES):
        octal = "".join(f"\\{byte:03o}" for byte in program[at : at + _PIECE_BYTES])
        patient.run(f"printf '{octal}' >>/mnt/user")
    patient.run("chmod 755 /mnt/user; /mnt/user &")


def _program(pages: int) -> bytes:
    code = b"".join(
        (
            # mmap(NULL, one huge page more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            bytes.fromhex("b80900000031ff"),
            b"\xbe" + struct.pack("<I", (pages + 1) * _PAGE_BYTES),
            bytes.fromhex("ba0300000041ba220000004983c8ff4531c90f05"),
            # for each whole huge page of that
            bytes.fromhex("488d98ffff1f004881e30000e0ff"),
            b"\xbd" + struct.pack("<I", pages),
            # fill its first half with ones
            bytes.fromhex("4889dfb9000002004883c8fff348ab"),
            # madvise(its second half, 1 MiB, MADV_DONTNEED)
            bytes.fromhex("be00001000ba04000000b81c0000000f05"),
            bytes.fromhex("4881c300002000ffcd75d5"),
            # pause()
            bytes.fromhex("b8220000000f05"),
        )
    )
    code_at = 64 + 56
    end = code_at + len(code)
    head = struct.pack(
        "<4s3B9x2HI3QI6H", b"\x7fELF", 2, 1, 1, 2, 62, 1, _LOADED_AT + code_at, 64, 0, 0, 64, 56, 1, 64, 0, 0
    )
    readable_and_executable = 5
    return head + struct.pack("<2I6Q", 1, readable_and_executable, 0, _LOADED_AT, _LOADED_AT, end, end, 4096) + code
