"""ARM processors under QEMU's user-mode emulation: the ARM builds of the runtimes execute the kernels that they choose for the processor
that is named (its instruction set decides: Cortex-A53 has neither dot products nor matrix instructions, A76 has dot products, A710 both).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from model.errors import UserError
from runtime_bench.devices.arm import PROJECT, PYTHON, is_prepared, prepare_arm
from runtime_bench.devices.local import run_here
from runtime_bench.roofline import processor

CPUS = ("cortex-a53", "cortex-a76", "cortex-a710")


class Qemu:
    """One processor.

    Args:
        cpu: QEMU's name of it.

    Raises:
        UserError: QEMU has no such processor, or what is missing cannot be fetched.
    """

    def __init__(self, cpu: str) -> None:
        self.name = f"qemu:{cpu}"
        self.has_times = False
        self.shard = 12  # nobody unplugs it, and Python's start takes it as long as three photographs
        self._cpu = cpu
        self._folder = prepare_arm()
        self.python = (str(self._folder / "root" / "usr" / "bin" / f"python{PYTHON}"),)
        self.workers = os.cpu_count() or 1
        try:
            self.run([*self.python, "-c", ""])
        except UserError as error:
            raise UserError(f"{self.name} cannot be used ({error}); {', '.join(CPUS)} are known to work") from None

    @property
    def _emulator(self) -> Path:
        return self._folder / "qemu-aarch64"

    def describe(self) -> str:
        found = re.search(r"version ([\d.]+)", run_here([self._emulator, "--version"]))
        return f"{self._cpu}, emulated by QEMU {found[1] if found else ''} on {processor()}"

    def phone(self) -> None:
        return None

    def push(self, path: Path) -> str:
        return str(path.resolve())  # the emulated program sees this machine's files

    def run(self, command: Sequence[str]) -> str:
        site = os.pathsep.join(str(folder) for folder in (self._folder / "site", PROJECT))
        environment = {"PYTHONPATH": site, "PYTHONPYCACHEPREFIX": str(self._folder / "pycache"), "OMP_NUM_THREADS": "1"}
        settings = [word for name, value in environment.items() for word in ("-E", f"{name}={value}")]
        return run_here([self._emulator, "-L", self._folder / "root", "-cpu", self._cpu, *settings, *command])

    def pull(self, there: str, here: Path) -> None:
        shutil.copyfile(there, here)

    def drop(self, there: str) -> None:
        Path(there).unlink(missing_ok=True)


def listed() -> list[tuple[str, str]]:
    """Processors, and whether they can be used."""
    state = "ready" if is_prepared() else "set up when first used, 0.4 GB"
    return [(f"qemu:{cpu}", f"emulated; no times ({state})") for cpu in CPUS]
