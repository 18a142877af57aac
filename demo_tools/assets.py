"""Puts artifacts into a demo: ``make android-assets``, ``make ios-assets``.

``python -m demo_tools.assets DEMO ARTIFACT...`` replaces what was there. Every file is checked against its digest, before and after.
"""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_tools.checks import ROOT
from model.artifact import MANIFEST, MODEL_CARD, Artifact, open_artifact
from model.cli import Parser, run_command
from model.errors import UserError
from model.files import atomic_folder, sha256


@dataclass(frozen=True)
class Demo:
    """An app that runs artifacts."""

    format: str
    models: Path
    """Each artifact is a folder in this one."""


DEMOS = {
    "android": Demo("tflite", ROOT / "android_demo/app/src/main/assets/models"),
    "ios": Demo("coreml", ROOT / "ios_demo/Models"),
}


def check(path: Path, format: str) -> Artifact:
    """An artifact that an app for this format can run.

    Raises:
        UserError: it cannot, or is no artifact, or a file of it has changed.
    """
    artifact = open_artifact(path)
    manifest = artifact.manifest
    if manifest.format != format:
        raise UserError(f"{path} is {manifest.format}; the app runs {format}: make export-{format}")
    if manifest.input.size is None:
        raise UserError(f"{path} takes any size; the app needs a fixed one: make export-{format}")
    if manifest.precision == "int8io":
        raise UserError(f"{path} takes and gives integers; the app feeds float32: make quantize INTEGERS=int8")
    return artifact


def copy(artifact: Artifact, models: Path) -> Path:
    """The artifact's folder in the app: the model and its contract. The reference weights stay behind, phones have no use for them."""
    folder = models / artifact.name
    with atomic_folder(folder, marker=MANIFEST) as fresh:
        for name in (artifact.manifest.model.name, MANIFEST, MODEL_CARD):
            source = artifact.path / name
            if source.is_dir():  # a Core ML package
                shutil.copytree(source, fresh / name)
            elif source.is_file():  # a card is no part of the contract
                shutil.copyfile(source, fresh / name)
        model = fresh / artifact.manifest.model.name
        if sha256(model) != artifact.manifest.model.sha256:
            raise UserError(f"{model.name} of {artifact.name} has changed while it was copied; run the command again")
    return folder


def install(paths: Sequence[Path], format: str, models: Path) -> list[Artifact]:
    """Make ``models`` hold these artifacts and no others. Nothing is changed unless all of them are in order."""
    artifacts = [check(path, format) for path in paths]
    names = [artifact.name for artifact in artifacts]
    if len(set(names)) < len(names):
        raise UserError(f"two artifacts of one name: {', '.join(sorted(name for name in set(names) if names.count(name) > 1))}")
    for artifact in artifacts:
        copy(artifact, models)
    for folder in models.iterdir():
        if (folder / MANIFEST).is_file() and folder.name not in names:
            shutil.rmtree(folder)
    return artifacts


def main() -> None:
    parser = Parser(prog="python -m demo_tools.assets", description=__doc__.splitlines()[0])
    parser.epilog = "example: python -m demo_tools.assets android build/artifacts/acwface_dcn-decomposed-fp32-320-tflite"
    parser.add_argument("demo", choices=DEMOS, help="which app")
    parser.add_argument("artifact", type=Path, nargs="+", help="artifact folder")
    parser.add_argument("--models", type=Path, help="where they go (default: the app's own folder)")
    args = parser.parse_args()
    demo = DEMOS[args.demo]
    for artifact in install(args.artifact, demo.format, args.models or demo.models):
        print(f"{artifact.name}  {artifact.manifest.model.size_bytes / 1e6:.2f} MB  {artifact.manifest.model.sha256[:12]}")


if __name__ == "__main__":
    sys.exit(run_command(main))
