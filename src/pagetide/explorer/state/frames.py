"""Where an actor's generator stands, as a value that can be compared."""

from typing import Any

from pagetide.explorer import ground

_SCALARS = (int, str, bool, float, type(None), tuple)


def frames_of(generator: Any) -> tuple[Any, ...]:
    """Where a generator is, and all that it would go on with."""
    frames: list[tuple[Any, ...]] = []
    while generator is not None:
        frame = generator.gi_frame
        values = tuple([v if isinstance(v, _SCALARS) else len(v) for v in frame.f_locals.values() if _counts(v)])
        code = frame.f_code
        if code.co_filename != ground.__file__ or not frames:
            frames.append((code.co_filename, frame.f_lineno, frame.f_lasti, values))
        generator = generator.gi_yieldfrom
    return tuple(frames)


def _counts(value: Any) -> bool:
    return isinstance(value, _SCALARS) or (hasattr(value, "dtype") and hasattr(value, "__len__") and value.ndim > 0)
