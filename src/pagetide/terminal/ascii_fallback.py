"""What to write where the locale cannot write our characters: a serial console, or `LC_ALL=C` with an encoding set."""

import codecs
import io
from typing import TextIO

_HANDLER = "pagetide.ascii"
_STAND_INS = dict(zip("━▁▂▃▄▅▆▇█┤└─–µ▒▓·▴▾←→↑↓", "=....:::#|+--u%@.^v<>^v", strict=True))  # noqa: RUF001 - the summary's dash


def fall_back_to_ascii(stream: TextIO) -> None:
    """Have a stream write a similar character for each that its encoding lacks, where it would have failed.

    Args:
        stream: standard output or error; one that has no encoding of its own is left alone.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_HANDLER)


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    assert error.start < error.end
    return "".join(_STAND_INS.get(each, "?") for each in error.object[error.start : error.end]), error.end


codecs.register_error(_HANDLER, _stand_in)
