"""Devices: where an artifact can be run. A new one is a module here and a line in :func:`open_device`.

``local`` is this machine. ``qemu:CPU`` runs the runtimes' own ARM builds under emulation: what ARM kernels compute, and no times.
``adb:SERIAL`` runs the same builds on a phone, without an app.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from model.errors import UserError
from runtime_bench.record import Phone


class Device(Protocol):
    """Paths of the device are strings, those of this machine ``Path``."""

    name: str
    """As ``--device`` takes it."""
    python: tuple[str, ...]
    """Command that starts Python there, with this project's packages."""
    workers: int
    """How many commands may run at a time."""
    shard: int
    """Photographs that go there at a time: what is lost with it. Each time Python starts anew."""
    has_times: bool
    """Whether how long something takes there means anything."""

    def describe(self) -> str:
        """What it is, for the record's ``machine``."""
        ...

    def phone(self) -> Phone | None:
        """What it says of itself at this moment; ``None`` of what is no phone."""
        ...

    def push(self, path: Path) -> str:
        """Bring a file or folder there, unless it is there already; where it is then."""
        ...

    def run(self, command: Sequence[str]) -> str:
        """Run a command there and give its stdout; a :class:`UserError` with the last line of its stderr if it fails."""
        ...

    def pull(self, there: str, here: Path) -> None:
        """Fetch a file."""
        ...

    def drop(self, there: str) -> None:
        """Delete a file that is no longer needed."""
        ...


def open_device(name: str) -> Device:
    """A device that can be used now; made ready if that takes no more than downloads.

    Raises:
        UserError: there is no such device, or it cannot be used.
    """
    kind, _, which = name.partition(":")
    if name == "local":
        from runtime_bench.devices.local import Local

        return Local()
    if kind == "qemu" and which:
        from runtime_bench.devices.qemu import Qemu

        return Qemu(which)
    if kind == "adb":
        from runtime_bench.devices.adb import Adb, only_serial

        return Adb(which or only_serial())
    raise UserError(f"no device called {name!r}; local, qemu:CPU and adb:SERIAL are known, see: python -m runtime_bench devices")


def list_devices() -> list[tuple[str, str]]:
    """Name and description of everything that is there or can be set up."""
    from runtime_bench.devices import adb, local, qemu

    return [("local", local.Local().describe()), *qemu.listed(), *adb.listed()]
