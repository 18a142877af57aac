"""Instructions that the kernel executes on ARM, counted under emulation: exact, the same on every machine.

A run of one call is taken from a run of three, so that start-up and test data do not count. Instructions are not time: loads that
miss the cache and long divisions count as one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tabulate import tabulate

from export.kernel import SOURCES, VERSION
from export.kernel.build import build, targets
from export.kernel.shapes import PREDICTIONS, SHAPES, Shape
from model.errors import UserError

EMULATOR = "qemu-aarch64"
CALLS = 3
FORMS = {"sample": "DeformSample", "tiled": "DeformConvTiled", "conv3x3": "Conv3x3"}
INT8_FORMS = {"int8-tiled": "QDeformConvTiled", "int8-conv3x3": "QConv3x3"}
INT8_KERNELS = {"neon": "NEON", "neon-dot": "with dot products"}


def count(progress: Callable[[str], None]) -> str:
    """Tables for people, as those of :func:`export.kernel.bench.bench`: instructions for each output pixel.

    Raises:
        UserError: no emulator that takes plugins, or no compiler for ARM.
    """
    target = next((target for target in targets()[0] if target.name == "linux-aarch64" and target.options), None)
    compiler = shutil.which("cc") or shutil.which("gcc")
    if target is None or compiler is None or shutil.which(EMULATOR) is None:
        raise UserError(f"{EMULATOR}, a C compiler and one for ARM are needed (Debian: apt install qemu-user gcc gcc-aarch64-linux-gnu)")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        progress("building")
        build(target, out, programs=["acwface_repeat"], options=["-DCMAKE_EXE_LINKER_FLAGS=-static"])
        plugin = _plugin(compiler, out)

        def table(what: str, shapes: Sequence[Shape], forms: Sequence[str]) -> str:
            rows = []
            for shape in shapes:
                progress(f"{shape}, {what}")
                row: list[object] = [str(shape)]
                for form in forms:
                    scalar, neon = (_of_a_call(out, plugin, kernel, form, shape) / shape.side**2 for kernel in ("scalar", "neon"))
                    row += [scalar, neon, f"{scalar / neon:.1f}x"]
                rows.append(row)
            headers = [what, *(cell for form in forms for cell in (f"{FORMS[form]}, scalar", "NEON", ""))]
            return tabulate(rows, headers, tablefmt="github", floatfmt=".0f")

        def int8_table(shapes: Sequence[Shape], form: str) -> str:
            rows = []
            for shape in shapes:
                progress(f"{shape}, {INT8_FORMS[form]}")
                counts = (_of_a_call(out, plugin, kernel, form, shape) / shape.side**2 for kernel in ("scalar", *INT8_KERNELS))
                rows.append([str(shape), *counts])
            return tabulate(rows, [INT8_FORMS[form], "scalar", *INT8_KERNELS.values()], tablefmt="github", floatfmt=".0f")

        tables = [
            table("layer", SHAPES, ["sample", "tiled"]),
            table("prediction", PREDICTIONS, ["conv3x3"]),
            int8_table([shape for shape in SHAPES if shape.inputs <= shape.outputs], "int8-tiled"),
            int8_table([shape for shape in PREDICTIONS if shape.outputs == 27], "int8-conv3x3"),
        ]
    return "\n\n".join([f"kernel {VERSION}, instructions for each output pixel, AArch64", *tables])


def _plugin(compiler: str, out: Path) -> Path:
    version = re.search(r"version (\d+)", subprocess.run([EMULATOR, "--version"], capture_output=True, text=True, check=True).stdout)
    interface = 2 if version and int(version[1]) >= 9 else 1
    plugin = out / "count_instructions.so"
    source = SOURCES / "count_instructions.c"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", f"-DPLUGIN_VERSION={interface}", "-o", plugin, source], check=True)
    return plugin


def _of_a_call(out: Path, plugin: Path, kernel: str, form: str, shape: Shape) -> float:
    once, often = (_instructions(out, plugin, [kernel, form, *map(str, shape), str(calls)]) for calls in (1, CALLS))
    return (often - once) / (CALLS - 1)


def _instructions(out: Path, plugin: Path, arguments: list[str]) -> int:
    command = [EMULATOR, "-plugin", str(plugin), str(out / "obj" / "acwface_repeat"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    counted = re.search(r"instructions (\d+)", result.stderr)
    if result.returncode or counted is None:
        raise UserError(f"{EMULATOR} -plugin failed (a build without plugins?): {(result.stderr or result.stdout).strip()[:200]}")
    return int(counted[1])
