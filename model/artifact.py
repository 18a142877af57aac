"""Artifacts: a model file and everything that is needed to run it and to judge it, in one folder.

``<variant>-<dcn>-<precision>-<size>-<format>/`` holds the model file, ``detector.json`` (the contract that Python, Kotlin and Swift
read), ``reference.safetensors`` (the FP32 checkpoint that it was made from, so that drift can be measured wherever the folder goes)
and ``MODEL_CARD.md``. This module imports no torch: a device that only runs networks can read artifacts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from model.errors import UserError
from model.files import atomic_folder, sha256, size_bytes, write_json
from model.postprocess import Thresholds
from model.preprocess import MAX_ORIGINAL_PIXELS, InputSpec

SCHEMA = 1
"""Raised when a reader of the old contract would misread a new file."""
MANIFEST = "detector.json"
REFERENCE = "reference.safetensors"
MODEL_CARD = "MODEL_CARD.md"
MEANINGS = ("scores", "box_deltas", "landmark_deltas")


Extent = Annotated[int, Meta(ge=1, le=1 << 20)] | None
"""One axis of a tensor; ``None`` where any length goes."""
_Pixels = Annotated[int, Meta(ge=4, le=4096)]
_LEVELS = Meta(min_length=1, max_length=8)
_Version = Annotated[str, Meta(pattern=r"^\d{1,9}(\.\d{1,9}){0,4}\Z")]


class File(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the artifact, by name, with what it must be; or a folder, as Core ML's packages are."""

    name: str
    sha256: str
    """See :func:`model.files.sha256`."""
    size_bytes: int


class InputTensor(InputSpec, frozen=True, forbid_unknown_fields=True):
    """The network's only input; the shape's axes are those of ``layout``."""

    name: str = "image"
    dtype: Literal["float32", "image", "int8"] = "float32"
    """``float32``: fed as :func:`model.preprocess.prepare` makes it. ``image``: the model file takes a picture of 8 bits a channel in the
    platform's own type, and itself does what ``colour_order``, ``mean`` and ``scale`` say; whoever letterboxes still fills the border with
    the mean's colour. ``int8``: the former in the scale and zero point that the model file says."""
    shape: tuple[Extent, Extent, Extent, Extent] = (1, 3, None, None)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) in pixels, ``None`` for any."""
        height, width = (self.shape[self.layout.index(axis)] for axis in "HW")
        return None if height is None or width is None else (height, width)


class OutputTensor(Struct, frozen=True, forbid_unknown_fields=True):
    """One output of the network, a row for each anchor."""

    name: str
    meaning: Literal["scores", "box_deltas", "landmark_deltas"]
    """``scores``: face probability; the other two as :mod:`model.postprocess` decodes them."""
    shape: tuple[Extent, ...]
    dtype: Literal["float32", "int8"] = "float32"
    """``int8``: in the scale and zero point that the model file says."""


class AnchorSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of :func:`model.anchors.make_anchors`, and the box coding's variances."""

    strides: Annotated[tuple[_Pixels, ...], _LEVELS]
    min_sizes: Annotated[tuple[Annotated[tuple[_Pixels, ...], _LEVELS], ...], _LEVELS]
    variances: tuple[float, float]

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.min_sizes):
            raise ValueError(f"anchors have {len(self.strides)} strides and min_sizes for {len(self.min_sizes)}")


class Library(Struct, frozen=True, forbid_unknown_fields=True):
    """A library with operators that the runtime does not have."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{1,64}\Z")]
    """Of the file, without ``lib`` and suffix; never a path."""
    version: _Version


class RuntimeSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What has to be there to run the model file."""

    name: str
    minimum_version: _Version
    """Of the runtime; where it comes with the system (``coreml``), of iOS."""
    library: Library | None = None


class Parity(Struct, frozen=True, forbid_unknown_fields=True):
    """Largest differences from the FP32 torch model over all anchors of some photographs, measured before the artifact was written."""

    scores: float
    boxes_px: float
    landmarks_px: float
    """0 where the network gives none."""
    anchors: int
    """How many anchors were compared."""
    photographs: int


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """``detector.json``."""

    variant: str
    dcn: str
    """Route of the deformable convolutions, ``none`` where the network has none."""
    precision: str
    format: str
    weights: str
    """Where the weights come from, in words."""
    model: File
    reference: File
    input: InputTensor
    outputs: tuple[OutputTensor, ...]
    """In the order in which the model file gives them."""
    anchors: AnchorSpec
    thresholds: Thresholds
    runtime: RuntimeSpec
    parity: Parity | None
    """``None`` only while the artifact is being made."""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if sorted(output.meaning for output in self.outputs) not in (sorted(MEANINGS), sorted(MEANINGS[:2])):
            raise ValueError(f"outputs must be {', '.join(MEANINGS)}, each once; the last may be missing")
        size = self.input.size
        if size is not None and size[0] * size[1] > MAX_ORIGINAL_PIXELS:
            raise ValueError(f"an input of {size[0]}x{size[1]} is too large (limit {MAX_ORIGINAL_PIXELS // 10**6} megapixels)")


class _Versioned(Struct):
    """The one field that every schema has."""

    schema: int


class Artifact(Struct, frozen=True):
    """An artifact on disk whose files have been checked."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def model_path(self) -> Path:
        return self.path / self.manifest.model.name

    @property
    def reference_path(self) -> Path:
        return self.path / self.manifest.reference.name


def artifact_name(variant: str, dcn: str, precision: str, size: tuple[int, int] | None, format: str) -> str:
    """Name of the folder."""
    return "-".join((variant, dcn, precision, size_name(size), format))


def size_name(size: tuple[int, int] | None) -> str:
    """Height x width, one number for a square, ``dynamic`` for any."""
    return "dynamic" if size is None else str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def describe_file(path: Path) -> File:
    return File(path.name, sha256(path), size_bytes(path))


@contextmanager
def writing_artifact(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes the artifact ``path`` when the block ends without an error, replacing an earlier one."""
    with atomic_folder(path, marker=MANIFEST) as folder:
        yield folder


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(folder / MANIFEST, manifest)


def open_artifact(path: Path) -> Artifact:
    """Read ``detector.json`` and check the model file and the reference against their digests.

    Raises:
        UserError: no artifact, of a newer schema, a field missing, unknown or of the wrong type, a file missing or changed.
    """
    path = Path(path)
    try:
        text = (path / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is no artifact ({MANIFEST} is missing); make one with: python -m export onnx") from None
    try:
        schema = msgspec.json.decode(text, type=_Versioned).schema
        if schema > SCHEMA:
            raise UserError(f"{path} has schema {schema}, this version reads up to {SCHEMA}; update the project or export again")
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path / MANIFEST}: {error}; export the artifact again") from None
    artifact = Artifact(path.resolve(), manifest)
    for file in (manifest.model, manifest.reference):
        _check_file(path, file)
    return artifact


def _check_file(folder: Path, file: File) -> None:
    if Path(file.name).name != file.name or file.name in ("", ".."):  # a path, perhaps out of the folder
        raise UserError(f"{folder / MANIFEST}: {file.name!r} is not a plain file name; export the artifact again")
    path = folder / file.name
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is missing; export the artifact again")
    if size_bytes(path) != file.size_bytes or sha256(path) != file.sha256:
        raise UserError(f"{path} is not the file that was exported (SHA-256 differs); copy it again or export again")
