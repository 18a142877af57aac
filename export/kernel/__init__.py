"""The deformable kernel: C sources, what builds them (``python -m export.kernel``, ``make native``) and where the libraries are.

Start with ``deform.h`` (what is computed) and ``scalar.c`` (the reference); ``simd.h`` is the fast form. ``int8.h``, ``int8_scalar.c`` and
``simd_int8.h`` are the same for integers, ``ort_*.c`` and ``litert_delegate.c`` the adapters.
"""

from __future__ import annotations

import re
from pathlib import Path

from model.artifact import Library
from runtime_bench.runtimes import libraries
from runtime_bench.runtimes.libraries import NATIVE, host

__all__ = ["ADAPTERS", "LIBRARIES", "NATIVE", "SOURCES", "VERSION", "host", "library_path"]

SOURCES = Path(__file__).parent
VERSION: str = re.search(r'ACWFACE_KERNEL_VERSION "(.+)"', (SOURCES / "version.h").read_text())[1]
ADAPTERS = {"ort": "ONNX Runtime", "litert": "LiteRT"}
LIBRARIES = {adapter: Library(f"acwface_{adapter}", VERSION) for adapter in ADAPTERS}


def library_path(adapter: str) -> Path:
    """This machine's library for ``ort`` or ``litert``; a :class:`model.errors.UserError` when it has not been built."""
    return libraries.library_path(LIBRARIES[adapter])
