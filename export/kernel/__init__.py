"""The deformable kernel: C sources, what builds them (``python -m export.kernel``, ``make native``) and where the libraries are.

Start with ``deform.h`` (what is computed) and ``scalar.c`` (the reference); ``simd.h`` is the fast form, ``ort_op.c`` and
``litert_delegate.c`` are the adapters.
"""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

from model.errors import UserError

SOURCES = Path(__file__).parent
NATIVE = SOURCES.parents[1] / "build" / "native"
"""One folder for each processor and system that has been built for."""
VERSION: str = re.search(r'ACWFACE_KERNEL_VERSION "(.+)"', (SOURCES / "version.h").read_text())[1]
ADAPTERS = {"ort": "ONNX Runtime", "litert": "LiteRT"}


def host() -> str:
    """This machine's folder in :data:`NATIVE`, such as ``linux-x86_64``."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(machine, machine) }"


def library_name(adapter: str) -> str:
    """``libacwface_ort.so`` and the like, as this system names it."""
    return f"libacwface_{adapter}.{'dylib' if sys.platform == 'darwin' else 'so'}"


def library_path(adapter: str) -> Path:
    """This machine's library for ``ort`` or ``litert``.

    Raises:
        UserError: it has not been built.
    """
    path = NATIVE / host() / library_name(adapter)
    if not path.is_file():
        raise UserError(f"the deformable kernel for {ADAPTERS[adapter]} has not been built ({path.name}): make native")
    return path
