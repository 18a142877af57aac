"""Ctrl-C while a program is still importing what it needs. This module imports next to nothing, and is what programs import first."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def end_quietly() -> None:
    """Let Ctrl-C be one line and exit code 130 from now on; :func:`model.cli.run_command` takes over.

    There is nothing to clean up yet, and an exception in the middle of an import may be swallowed there, or come out as another one.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # shells have it ignored for what runs in the background
        signal.signal(signal.SIGINT, end_now)


def end_now(*_: object) -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(130)
