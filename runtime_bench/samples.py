"""Photographs that come with the project's dependencies, with hand-checked faces: enough to show that everything runs.

They are part of scikit-image: the astronaut is NASA's portrait of Eileen Collins (public domain), the cat and the coffee cup are CC0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data

from model.preprocess import load_image
from runtime_bench.widerface import SUBSETS, GroundTruth, WiderFace

_FOLDER = Path(skimage.data.__file__).parent
_FACES = {"astronaut.png": [[178.0, 62.0, 271.0, 179.0]], "chelsea.png": [], "coffee.png": []}
"""Left, top, right, bottom in pixels: hairline to chin."""

PORTRAIT = _FOLDER / "astronaut.png"


def sample_set(limit: int | None = None) -> WiderFace:
    """The samples, or the first so many, as an evaluation set; every face is in every subset."""
    faces = {}
    for name, boxes in list(_FACES.items())[:limit]:
        every = np.ones(len(boxes), bool)
        faces[name] = GroundTruth(np.asarray(boxes, np.float32).reshape(-1, 4), dict.fromkeys(SUBSETS, every))
    return WiderFace(_FOLDER, faces, "the sample photographs")


def sample_photographs() -> list[np.ndarray]:
    """``(H, W, 3)`` uint8 RGB of different sizes: the samples, and the portrait mirrored and cropped to an odd size."""
    portrait = load_image(PORTRAIT)
    return [*(load_image(_FOLDER / name) for name in _FACES), np.ascontiguousarray(portrait[:, ::-1]), portrait[11:348, 60:421]]
