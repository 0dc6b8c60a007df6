"""A thread without which its process is of no use: the process ends with it, so whoever started that hears of it."""

import os
import threading
import traceback
from collections.abc import Callable

STATUS = 1
"""What the process ends with."""


def start_vital(run: Callable[[], None]) -> threading.Thread:
    """Run something beside; an error that it raises is written to standard error, and ends the process at once."""

    def run_or_end() -> None:
        try:
            run()
        except BaseException:
            traceback.print_exc()
            os._exit(STATUS)

    thread = threading.Thread(target=run_or_end, daemon=True)
    thread.start()
    return thread
