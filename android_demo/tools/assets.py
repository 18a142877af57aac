"""Puts TFLite artifacts into the Android demo: ``make android-assets``.

``python -m android_demo.tools.assets ARTIFACT...`` replaces what was there. Every file is checked against its digest, before and after.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from model.artifact import MANIFEST, MODEL_CARD, Artifact, open_artifact
from model.cli import Parser, run_command
from model.errors import UserError
from model.files import atomic_folder, sha256

MODELS = Path(__file__).resolve().parents[1] / "app" / "src" / "main" / "assets" / "models"


def check(path: Path) -> Artifact:
    """An artifact that the app can run.

    Raises:
        UserError: it cannot, or is no artifact, or a file of it has changed.
    """
    artifact = open_artifact(path)
    manifest = artifact.manifest
    if manifest.format != "tflite":
        raise UserError(f"{path} is {manifest.format}; the app runs TFLite: make export-tflite")
    if manifest.input.size is None:
        raise UserError(f"{path} takes any size; the app needs a fixed one: make export-tflite")
    return artifact


def copy(artifact: Artifact, models: Path) -> Path:
    """The artifact's folder in the app: the model and its contract. The reference weights stay behind, phones have no use for them."""
    folder = models / artifact.name
    with atomic_folder(folder, marker=MANIFEST) as fresh:
        for name in (artifact.manifest.model.name, MANIFEST, MODEL_CARD):
            if (artifact.path / name).is_file():  # a card is no part of the contract
                shutil.copyfile(artifact.path / name, fresh / name)
        model = fresh / artifact.manifest.model.name
        if sha256(model) != artifact.manifest.model.sha256:
            raise UserError(f"{model.name} of {artifact.name} has changed while it was copied; run the command again")
    return folder


def install(paths: Sequence[Path], models: Path = MODELS) -> list[Artifact]:
    """Make ``models`` hold these artifacts and no others. Nothing is changed unless all of them are in order."""
    artifacts = [check(path) for path in paths]
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
    parser = Parser(prog="python -m android_demo.tools.assets", description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path, nargs="+", help="folder")
    parser.add_argument("--models", type=Path, default=MODELS, help="where they go (default: %(default)s)")
    args = parser.parse_args()
    for artifact in install(args.artifact, args.models):
        print(f"{artifact.name}  {artifact.manifest.model.size_bytes / 1e6:.2f} MB  {artifact.manifest.model.sha256[:12]}")


if __name__ == "__main__":
    sys.exit(run_command(main))
