"""Libraries with operators of the project's own: where they are and whether they are the right ones."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

from model.artifact import Library
from model.errors import UserError

NATIVE = Path(__file__).resolve().parents[2] / "build" / "native"
"""What ``make native`` fills: one folder for each processor and system that has been built for."""


def host() -> str:
    """This machine's folder in :data:`NATIVE`, such as ``linux-x86_64``."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(machine, machine) }"


def library_path(library: Library) -> Path:
    """This machine's file of a library.

    Raises:
        UserError: it has not been built, or from sources that are older than the artifact needs, or of another first number.
    """
    path = NATIVE / host() / f"lib{library.name}.{'dylib' if sys.platform == 'darwin' else 'so'}"
    if not path.is_file():
        raise UserError(f"operators of {library.name} {library.version} are needed and {path.name} has not been built; run: make native")
    built = ctypes.CDLL(str(path)).acwface_kernel_version
    built.restype = ctypes.c_char_p
    if not _serves(version := built().decode(), library.version):
        raise UserError(f"operators of {library.name} {library.version} are needed, {path} is {version}; run: make native, or export again")
    return path


def _serves(version: str, needed: str) -> bool:
    """Whether operators are added only, between these versions."""
    have, need = ([int(part) for part in text.split(".")] for text in (version, needed))
    return have[0] == need[0] and have >= need
