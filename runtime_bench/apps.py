"""Records that the demos' benchmarks have written on phones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from model.artifact import open_artifact
from model.errors import UserError
from runtime_bench.record import Result, read_results

_ACCELERATORS = ("cpu", "gpu", "npu")


def import_records(paths: Sequence[Path], artifacts: Path) -> list[Result]:
    """Read records of the apps, and see that they are of the files that are here.

    Args:
        paths: files, or folders of them.
        artifacts: folder of artifacts. A record of one that is not in it is taken as it is.

    Raises:
        UserError: a file is cut short, holds no record of an app, or one whose figures cannot be true; or it is of another file than the
            artifact of its name.
    """
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    if not files:
        raise UserError(f"no record in {', '.join(map(str, paths))}; share it from the app's benchmark screen")
    return [_checked(result, file, artifacts) for file in files for result in _of_app(file)]


def _of_app(file: Path) -> list[Result]:
    results = read_results(file)
    if not results or any(result.latency_ms is None or result.device.partition(":")[0] in ("local", "qemu", "adb") for result in results):
        raise UserError(f"{file} is no record of an app's benchmark; share one from its benchmark screen")
    return results


def _checked(result: Result, file: Path, artifacts: Path) -> Result:
    folder = artifacts / result.artifact
    if folder.is_dir():
        manifest = open_artifact(folder).manifest
        known = (manifest.reference.sha256, manifest.model.size_bytes, manifest.format, manifest.precision)
        if (result.checkpoint, result.size_bytes, result.format, result.precision) != known:
            raise UserError(f"{file} is of another file than {folder}; put that into the app and measure again")
    # Android's app names last what ran, iOS's what was allowed.
    last = result.device.rpartition(", ")[2]
    return msgspec.structs.replace(result, accelerator=last if last in _ACCELERATORS and result.runtime != "coreml" else "")
