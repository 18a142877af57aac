"""This machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from model.errors import UserError
from runtime_bench.roofline import processor


def run_here(command: Sequence[str | Path], timeout_s: float | None = None) -> str:
    """Stdout of a command; a :class:`UserError` with the last line of its stderr if it fails, does not exist or takes longer."""
    words = [str(word) for word in command]
    try:
        finished = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=timeout_s)
    except FileNotFoundError:
        raise UserError(f"{words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{Path(words[0]).name}: no answer for {timeout_s:.0f} s") from None
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
        raise UserError(f"{Path(words[0]).name}: {lines[-1].removeprefix('error: ')}")
    return finished.stdout


class Local:
    """Everything is here already."""

    name = "local"
    python = (sys.executable,)
    workers = 1
    shard = 12
    has_times = True

    def describe(self) -> str:
        return f"{processor()}, {os.cpu_count()} cores"

    def phone(self) -> None:
        return None

    def push(self, path: Path) -> str:
        return str(path.resolve())

    def run(self, command: Sequence[str]) -> str:
        return run_here(command)

    def pull(self, there: str, here: Path) -> None:
        shutil.copyfile(there, here)

    def drop(self, there: str) -> None:
        Path(there).unlink(missing_ok=True)
