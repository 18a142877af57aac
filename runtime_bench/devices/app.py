"""The Android demo's benchmark, started over adb: an artifact on a phone's CPU, GPU or NPU, as LiteRT runs it in an app.

Artifacts go into the app's folder on the shared storage, so that a new one needs no new build; the app answers with files beside them: a
record, or the reason why there is none.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from model.artifact import MANIFEST, Artifact
from model.errors import UserError
from model.files import sha256
from runtime_bench.apps import import_records
from runtime_bench.devices.adb import Attached
from runtime_bench.devices.phone import PhoneWatch
from runtime_bench.latency import RUNS, WARMUP
from runtime_bench.record import Result

PACKAGE = "acwface.demo"
FILES = f"/sdcard/Android/data/{PACKAGE}/files"
HARDWARE = ("cpu", "gpu", "npu")
LIMIT_S = 600

_POLL_S = 2.0
"""Not more often: each look is work that the phone does beside the benchmark."""
_GONE = 5
"""Looks in a row that find neither a process nor its answer: it has ended without one."""
_COMMAND_S = 120
"""For one command of adb."""
_INSTALL = "build it and install it: ./gradlew :app:installDebug, see android_demo/README.md"


class HowOften(NamedTuple):
    """Of one measurement, which is one process."""

    threads: int = 1
    """Of the CPU."""
    runs: int = RUNS
    warmup: int = WARMUP


class DemoApp(Attached):
    """The demo on one device.

    Args:
        serial: as ``adb devices`` lists it.
        limit_s: for one measurement, from its start to the record.

    Raises:
        UserError: the device is not there, does not let us in, or has no demo.
    """

    def __init__(self, serial: str, limit_s: float = LIMIT_S) -> None:
        super().__init__(serial, _COMMAND_S)
        self._limit_s = limit_s
        self.build = self._shell(f"pm path {PACKAGE} || true").strip()
        """Another one after every installation."""
        if not self.build.startswith("package:"):
            raise UserError(f"{serial} does not have the demo ({PACKAGE}); {_INSTALL}")
        names = ("ro.product.manufacturer", "ro.product.model", "ro.build.version.release")
        maker, model, release = (self._property(name) for name in names)
        self._title = f"{maker} {model}, Android {release}"

    def on(self, hardware: str) -> str:
        """As the app writes a record's ``device``."""
        return f"{self._title}, {hardware}"

    def put(self, artifact: Artifact) -> None:
        """Bring the model file and its contract there, unless they are there already."""
        files = (artifact.model_path, artifact.path / MANIFEST)
        folder, part = (shlex.quote(f"{FILES}/models/{name}") for name in (artifact.name, f".{artifact.name}"))
        names = shlex.join(file.name for file in files)
        there = self._shell(f"cd {folder} 2>/dev/null && sha256sum {names} 2>/dev/null || true").splitlines()
        if [line.split()[0] for line in there] == [sha256(file) for file in files]:
            return
        if not self._has_folder():
            # Android lets an app into its folder if it has made it itself.
            try:
                self._wait(self._start([]))
            except UserError as error:  # there is no model to measure, or something is really wrong
                if not self._has_folder():
                    raise UserError(f"{error} (and the app has made no folder {FILES}/models)") from None
        self._shell(f"umask 0 && rm -rf {part} && mkdir {part}")
        for file in files:
            # Not adb's own push: since Android 11 it fails there, as it may not change a file's owner.
            pushed = self.push(file)
            self._shell(f"umask 0 && cp {shlex.quote(pushed)} {part}/")
            self.drop(pushed)
        self._shell(f"rm -rf {folder} && mv {part} {folder}")

    def measure(self, artifact: Artifact, hardware: str, how: HowOften) -> Result:
        """Latency of what :meth:`put` has brought there, on one of :data:`HARDWARE` and nothing else.

        Raises:
            UserError: the app says why it has not measured, in its words; it ended or took too long; the device is gone; or what it wrote
                is no record of this artifact on this hardware.
        """
        extras = ["-e", "model", artifact.name, "-e", "hardware", hardware, "--ez", "fallback", "false"]
        extras += [word for name, value in how._asdict().items() for word in ("--ei", name, str(value))]
        result = self._record(self._start(extras), artifact)
        if result.accelerator != hardware:
            raise UserError(f"asked for {hardware}, the app ran it on {result.accelerator or 'something else'}; {_INSTALL}")
        return result

    def stop(self) -> None:
        """End the app, which keeps the screen on. Not an error where the device is gone."""
        with suppress(UserError):
            self._shell(f"am force-stop {PACKAGE}")

    def _has_folder(self) -> bool:
        return self._shell(f"[ -d {FILES}/models ] && echo yes || true").strip() == "yes"

    def _start(self, extras: list[str]) -> str:
        """Path there that the answer will have, without its suffix."""
        name = f"run-{secrets.token_hex(8)}"
        self._shell("{ input keyevent KEYCODE_WAKEUP; wm dismiss-keyguard; } >/dev/null 2>&1; true")
        activity = f"am start -S -n {PACKAGE}/.BenchmarkActivity"
        said = self._shell(f"{activity} {shlex.join(['-e', 'record', name, *extras])} 2>&1 || true").splitlines()
        if errors := [line.strip() for line in said if line.startswith("Error")]:
            raise UserError(f"{errors[-1].removeprefix('Error: ')}; {_INSTALL}")
        return f"{FILES}/benchmark/{name}"

    def _wait(self, there: str) -> None:
        deadline, gone = time.monotonic() + self._limit_s, 0
        while True:
            time.sleep(_POLL_S)
            # The process first: it may end as soon as it has written.
            seen = self._shell(f"pidof {PACKAGE}:benchmark; ls {there}.json {there}.failed 2>/dev/null; true").split()
            if f"{there}.json" in seen:
                return
            if f"{there}.failed" in seen:
                reason = self._shell(f"cat {there}.failed").strip()
                self._clear(there)
                raise UserError(reason)
            gone = 0 if seen else gone + 1
            if gone == _GONE:
                crashed = f"adb -s {self._serial} logcat -d -b crash"
                raise UserError(f"the app ended without a record: it crashed, or memory was short; {crashed} says more")
            if time.monotonic() > deadline:
                self.stop()
                raise UserError(
                    f"no record after {self._limit_s:.0f} s, the app was stopped; ask for fewer --runs or a longer --time-limit"
                )

    def _clear(self, there: str) -> None:
        """What is left over does no harm."""
        self._shell(f"rm -f {there}.json {there}.failed 2>/dev/null || true")

    def _record(self, there: str, artifact: Artifact) -> Result:
        self._wait(there)
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / Path(there).with_suffix(".json").name
            self.pull(f"{there}.json", file)
            self._clear(there)
            results = import_records([file], artifact.path.parent)
        if [result.artifact for result in results] != [artifact.name]:
            raise UserError(f"the app's record is of {', '.join(result.artifact for result in results)}; {_INSTALL}")
        return results[0]


def app_inputs(app: DemoApp, artifact: Artifact, hardware: str, how: HowOften) -> str:
    """:attr:`runtime_bench.record.Result.inputs`: everything that the app's figures depend on. None of it is of this machine."""
    # The manifest holds the digests of the other files.
    parts = (artifact.name, sha256(artifact.path / MANIFEST), app.name, app.build, app.on(hardware), str(how))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def benchmark_in_app(
    app: DemoApp, watch: PhoneWatch, artifact: Artifact, hardware: str, how: HowOften, earlier: Result | None = None
) -> Iterator[Result]:
    """One result, or an earlier one of the same measurement; raises as :meth:`DemoApp.put` and :meth:`DemoApp.measure` do."""
    inputs = app_inputs(app, artifact, hardware, how)
    if earlier is not None and earlier.inputs == inputs:
        yield earlier
        return
    what = f"{artifact.name} on {hardware}"
    print(f"{what}: latency ...", file=sys.stderr, flush=True)
    try:
        app.put(artifact)
        result = watch.measure(app.name, app.phone, what, lambda: app.measure(artifact, hardware, how))
    except UserError as error:
        raise UserError(f"{artifact.name}: {error}") from None
    yield msgspec.structs.replace(result, device=app.on(hardware), inputs=inputs)
