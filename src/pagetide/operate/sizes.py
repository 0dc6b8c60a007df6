"""Sizes and counts as evidence holds them: bounded, since all of it may have been written by somebody else."""

from typing import Annotated

import msgspec

LARGEST = 1 << 60
"""No figure is above this: an exbibyte."""

Size = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
"""Bytes."""

Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
"""A number of things."""

Word = Annotated[str, msgspec.Meta(max_length=200)]
"""A short text."""
