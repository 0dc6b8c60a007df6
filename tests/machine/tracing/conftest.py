"""What tests of the running kernel need."""

import contextlib

import pytest

from pagetide.machine.tracing.kernel_files import NoTracingError, OwnKernelFiles
from tests.needed import lacking


@pytest.fixture
def tracefs() -> None:
    """Skip the test where this kernel may not be traced: not root, or a sandbox or kernel without. CI must have it."""
    try:
        with contextlib.closing(OwnKernelFiles()):
            pass
    except NoTracingError as error:
        lacking(str(error))
