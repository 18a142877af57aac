"""WIDER FACE from its publishers into the layout that everything here reads.

torchvision's dataset class knows the official archives and their digests; the subsets' ground truth comes with the official
evaluation tools. What is there and whole is not fetched again.
"""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets import WIDERFace
from torchvision.datasets.utils import download_url

from model.errors import UserError
from model.files import atomic_file
from runtime_bench.widerface import SUBSETS, load_validation
from train.widerface_data import read_labels

EVALUATION_TOOLS = "http://shuoyang1213.me/WIDERFACE/support/eval_script/eval_tools.zip"
_COUNTS = {"train": 12880, "val": 3226}


def fetch_widerface(root: Path) -> None:
    """Fetch, unpack and check the training and validation sets.

    Makes ``train/images``, ``val/images``, ``val/ground_truth`` and ``wider_face_split`` in ``root``; archives stay in ``root/widerface``
    until all is there, so a broken fetch goes on where it stopped.

    Raises:
        UserError: an archive cannot be fetched or is damaged, or images are missing at the end.
    """
    root.mkdir(parents=True, exist_ok=True)
    missing = [split for split in _COUNTS if not _complete(root, split)]
    if missing:
        _fetch_images(root, missing)
    if not all((root / "val" / "ground_truth" / f"wider_{subset}_val.mat").is_file() for subset in SUBSETS):
        _fetch_ground_truth(root)
    _, labels = read_labels(root)
    print(f"{root}: {len(labels)} training and {len(load_validation(root))} validation images")


def _complete(root: Path, split: str) -> bool:
    return (root / "wider_face_split").is_dir() and sum(1 for _ in (root / split / "images").rglob("*.jpg")) >= _COUNTS[split]


def _fetch_images(root: Path, splits: Sequence[str]) -> None:
    archives = root / "widerface"
    try:
        WIDERFace(str(root), download=True)  # all splits; archives that have the right digest already are kept
    except (OSError, RuntimeError, ImportError, zipfile.BadZipFile) as error:
        raise UserError(
            f"WIDER FACE cannot be fetched ({error}); run the command again, or put the official archives into {archives}"
        ) from None
    shutil.copytree(archives / "wider_face_split", root / "wider_face_split", dirs_exist_ok=True)
    for split in splits:
        images = root / split / "images"
        source = archives / f"WIDER_{split}" / "images"
        if images.exists() or not source.is_dir():
            raise UserError(f"{images} is incomplete; move it and {source.parent} away and run the command again")
        images.parent.mkdir(exist_ok=True)
        os.rename(source, images)
        if not _complete(root, split):
            raise UserError(
                f"{images} holds fewer than {_COUNTS[split]} images; move it and {source.parent} away and run the command again"
            )


def _fetch_ground_truth(root: Path) -> None:
    archive = root / "widerface" / "eval_tools.zip"
    archive.parent.mkdir(exist_ok=True)
    try:
        if not zipfile.is_zipfile(archive):
            archive.unlink(missing_ok=True)  # a part of one
            download_url(EVALUATION_TOOLS, str(archive.parent), archive.name)
        with zipfile.ZipFile(archive) as tools:
            for name in tools.namelist():
                if name.endswith(".mat") and "/ground_truth/" in name:
                    with atomic_file(root / "val" / "ground_truth" / Path(name).name) as temporary:
                        temporary.write_bytes(tools.read(name))
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"the official ground truth cannot be fetched ({error}); copy wider_*_val.mat into {root / 'val' / 'ground_truth'}"
        ) from None
