"""Android phones and tablets over adb, without an app: Python and the runtimes for ARM are pushed into a folder that the shell may write to
and run from there by their own dynamic loader, since Android's C library is another one.

The runtimes' CPU kernels run as they would in an app; GPUs and NPUs are out of reach this way.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from model.errors import UserError
from model.files import sha256
from runtime_bench.devices.arm import PROJECT, PYTHON, arm_folder, prepare_arm
from runtime_bench.devices.local import run_here
from runtime_bench.devices.phone import read_phone
from runtime_bench.record import Phone

FOLDER = "/data/local/tmp/acwface"
ABI = "arm64-v8a"
TIMEOUT_S = 3600
"""Of one command: a phone that has hung does not come back by itself."""
_WHOLE = ".whole"
"""Stands beside what has been pushed to the end."""
_STATES = {
    "unauthorized": "unlock it and allow this computer",
    "offline": "unplug it and plug it in again",
    "no permissions": "the user of this computer may not use it, see adb's udev rules",
}


class Attached:
    """A device that adb reaches, whatever it is used for.

    Args:
        serial: as ``adb devices`` lists it.
        timeout_s: of one command, instead of :data:`TIMEOUT_S`.

    Raises:
        UserError: it is not there, or does not let us in.
    """

    def __init__(self, serial: str, timeout_s: float | None = None) -> None:
        self.name = f"adb:{serial}"
        self._serial, self._timeout_s = serial, timeout_s
        states = _attached()
        if serial not in states:
            raise UserError(f"no device {serial}; adb sees {', '.join(states) or 'none: plug one in and allow USB debugging'}")
        if states[serial] != "device":
            raise UserError(f"{serial} is {states[serial]}: {_STATES.get(states[serial], 'see adb devices')}")

    def describe(self) -> str:
        names = ("ro.product.manufacturer", "ro.product.model", "ro.soc.model", "ro.build.version.release")
        maker, model, soc, release = (self._property(name) for name in names)
        return f"{maker} {model} ({soc or self._property('ro.board.platform')}), Android {release}"

    def phone(self) -> Phone:
        return read_phone(self._shell)

    def push(self, path: Path) -> str:
        # The name too: two files with the same in them are two files.
        folder = f"{FOLDER}/{hashlib.sha256(f'{path.name} {sha256(path)}'.encode()).hexdigest()[:16]}"
        if not self._is_whole(folder):
            self._shell(f"rm -rf {folder} && mkdir -p {folder}")
            self._adb("push", str(path), f"{folder}/{path.name}")
            self._shell(f"touch {folder}/{_WHOLE}")
        return f"{folder}/{path.name}"

    def run(self, command: Sequence[str]) -> str:
        return self._shell(shlex.join(command))

    def pull(self, there: str, here: Path) -> None:
        self._adb("pull", there, str(here))

    def drop(self, there: str) -> None:
        self._shell(shlex.join(["rm", "-rf", str(Path(there).parent)]))

    def _is_whole(self, folder: str) -> bool:
        return self._shell(f"[ -e {folder}/{_WHOLE} ] && echo yes || true").strip() == "yes"

    def _property(self, name: str) -> str:
        return self._shell(f"getprop {name}").strip()

    def _shell(self, command: str) -> str:
        return self._adb("shell", "-n", command)

    def _adb(self, *words: str) -> str:
        try:
            return run_here(["adb", "-s", self._serial, *words], timeout_s=self._timeout_s or TIMEOUT_S)
        except UserError as error:
            if "No space left" in str(error):
                raise UserError(f"{self._serial} is full; free half a gigabyte there ({FOLDER} is ours and may be deleted)") from None
            if str(error) in ("adb: Killed", "adb: exit code 137"):
                raise UserError(
                    f"{self._serial} killed it, as phones do when memory is short; close apps and go on with --resume"
                ) from None
            raise


class Adb(Attached):
    """One device, as it is for Python.

    Args:
        serial: as ``adb devices`` lists it.

    Raises:
        UserError: it is not there, does not let us in, or has another processor; or what is missing cannot be fetched or pushed.
    """

    workers = 1
    shard = 6
    has_times = True

    def __init__(self, serial: str) -> None:
        super().__init__(serial)
        abi = self._property("ro.product.cpu.abi")
        if abi != ABI:
            raise UserError(f"{serial} has {abi or 'an unknown'} ABI; the runtimes are built for {ABI}")
        python = self._push_python(prepare_arm())
        root = f"{python}/root"
        libraries = f"{root}/usr/lib/aarch64-linux-gnu:{root}/usr/lib"
        self.python = (
            *("env", f"PYTHONHOME={root}/usr", f"PYTHONPATH={python}/site:{self._push_project()}", "PYTHONDONTWRITEBYTECODE=1"),
            *(f"{root}/lib/ld-linux-aarch64.so.1", "--library-path", libraries, f"{root}/usr/bin/python{PYTHON}"),
        )

    def _push_python(self, folder: Path) -> str:
        """One archive: thousands of small files take minutes."""
        there = f"{FOLDER}/python-{folder.name}"
        if not self._is_whole(there):
            with tempfile.TemporaryDirectory() as temporary:
                archive = Path(temporary) / "python.tar"
                with tarfile.open(archive, "w") as tar:
                    for part in ("root/lib", "root/usr/lib", f"root/usr/bin/python{PYTHON}", "site"):
                        tar.add(folder / part, part)
                self._shell(f"rm -rf {there} && mkdir -p {there}")
                self._adb("push", str(archive), f"{there}/python.tar")
            self._shell(f"cd {there} && tar -xf python.tar && rm python.tar && touch {_WHOLE}")
        return there

    def _push_project(self) -> str:
        """The code that runs networks, without weights."""
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary) / "project"
            for room in ("model", "runtime_bench"):
                shutil.copytree(PROJECT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__", "weights"))
            libraries = PROJECT / "build" / "native" / "linux-aarch64"
            for library in libraries.glob("*.so"):
                target = copy / libraries.relative_to(PROJECT) / library.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, target)
            return self.push(copy)


def only_serial() -> str:
    """The serial of the one device that is there; a :class:`UserError` where there is none, or a choice."""
    states = _attached()
    if len(states) != 1:
        found = f"{len(states)} devices: say which, {' or '.join(f'adb:{serial}' for serial in states)}"
        raise UserError(f"adb sees {found if states else 'no device: plug one in and allow USB debugging'}")
    return next(iter(states))


def _attached() -> dict[str, str]:
    """State by serial."""
    if shutil.which("adb") is None:
        raise UserError("adb is not installed (Debian: apt install adb; or Android's platform-tools)")
    states = {}
    for line in run_here(["adb", "devices"], timeout_s=60).splitlines()[1:]:
        serial, _, state = line.partition("\t")
        if state:
            states[serial] = next((known for known in _STATES if state.startswith(known)), state.strip())
    return states


def listed() -> list[tuple[str, str]]:
    """Every device that adb sees, and its state; or that there is no adb."""
    try:
        states = _attached()
    except UserError as error:
        return [("adb:SERIAL", str(error))]
    ready = "" if (arm_folder()).is_dir() else "; what runs there is fetched when first used"
    found = [(f"adb:{serial}", f"ready{ready}" if state == "device" else state) for serial, state in states.items()]
    return found or [("adb:SERIAL", "adb sees no device")]
