"""What the command lines of all rooms share."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from model.errors import UserError
from model.interrupt import end_now

SIZES = range(32, 4097)
"""Sides of a fixed network input, pixels."""

_ROOMS = ("model", "train", "export", "quantize", "runtime_bench")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, like every other error here, and that takes options between arguments
    (``detect ARTIFACT --out faces PHOTO``), which argparse does not do for commands."""

    _divides = False  # into commands, or arguments into options and others, at this moment

    def add_subparsers(self, **settings: Any) -> Any:
        self._divides = True
        return super().add_subparsers(**settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._divides:
            return super().parse_known_args(args, namespace)
        self._divides = True  # what follows calls this method
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._divides = False

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def run_command(main: Callable[[], int | None]) -> int:
    """Run a command-line entry point and turn what a user can cause into a line and an exit code.

    Returns:
        What ``main`` returns (``None`` counts as 0), 2 after a :class:`UserError`, an operating-system error or a missing package,
        130 after Ctrl-C, 143 after SIGTERM. Anything else is a bug of ours and keeps its traceback.
    """
    quiet = signal.getsignal(signal.SIGINT) is end_now
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
        if quiet:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names have characters that a terminal may not
    try:
        code = main() or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _ROOMS:
            raise
        print(f"error: {error.name} is not installed, or there is none for {sys.platform}; run: make setup", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (head, less) has gone. Point stdout elsewhere, or the interpreter complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        # Until the interpreter is gone: its own last steps can be interrupted too.
        if quiet:
            signal.signal(signal.SIGINT, end_now)
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(*_: object) -> NoReturn:
    """As an exception, so that what is half-made is removed. Another SIGTERM does not break that off."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)


def add_size(parser: argparse._ActionsContainer, **options: object) -> None:
    """Add ``--size``: one number for a square, or height and width."""
    parser.add_argument("--size", type=int, nargs="+", metavar=("HEIGHT", "WIDTH"), **options)


def parse_size(numbers: list[int]) -> tuple[int, int]:
    """(height, width) from the values of ``--size``.

    Raises:
        UserError: more than two numbers, or one outside :data:`SIZES`.
    """
    if len(numbers) > 2 or any(number not in SIZES for number in numbers):
        raise UserError(
            f"--size {' '.join(map(str, numbers))}: one or two numbers from {SIZES[0]} to {SIZES[-1]} are needed (height width, pixels)"
        )
    return numbers[0], numbers[-1]


def positive(text: str) -> int:
    """For ``type=``: a number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)
