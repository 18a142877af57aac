"""Where drift begins: signal to noise of every value that an artifact computes, against an FP32 artifact of the same network and route.

Unlike the sensitivity of single layers, this is what has gathered on the way, in a finished file. What a value has less of than the worst
of those that it is computed from was lost in its own operator.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from model.artifact import Artifact, open_artifact
from model.errors import UserError
from model.preprocess import in_layout
from runtime_bench.latency import require_readable
from runtime_bench.traces import Trace, trace

EXACT_DB = 120.0
"""More than single precision tells: what is above counts as this."""
_COMPARED = 4096
"""Numbers of a value that it is recognised by."""
_FITTED = 16
"""Numbers of a channel from which on a factor does not explain everything."""
_SAME_OPERATOR = 0.01
"""As much as so much correlation."""


class ValueNoise(Struct, frozen=True, forbid_unknown_fields=True):
    """One value, of all photographs together."""

    name: str
    """In the reference."""
    operator: str
    shape: tuple[int, ...]
    sqnr_db: float
    """Signal to noise. Feature maps may differ by a factor for each channel, since equalisation leaves them so."""
    lost_db: float
    """Of it, in this operator: the lowest of those that it is computed from, less its own; below 0 where noise was averaged away."""


class ArtifactNoise(Struct, frozen=True, forbid_unknown_fields=True):
    """An artifact against its reference."""

    artifact: str
    reference: str
    photographs: int
    values: tuple[ValueNoise, ...]
    """In order of execution."""
    unpaired: int
    """Values of the artifact that have no counterpart: rewritten, or not real numbers in both."""


def find_reference(artifact: Artifact) -> Artifact:
    """The FP32 artifact beside it, of the same network, route, size and format.

    Raises:
        UserError: there is none, or it is that one itself.
    """
    name = artifact.path.resolve().name.replace(f"-{artifact.manifest.precision}-", "-fp32-")
    path = artifact.path.resolve().with_name(name)
    if artifact.manifest.precision == "fp32" or not path.is_dir() or path == artifact.path.resolve():
        raise UserError(f"{artifact.path}: no FP32 artifact of the same network beside it to compare with; name one with --reference")
    return open_artifact(path)


def measure_sqnr(artifact: Artifact, reference: Artifact, tensors: Sequence[np.ndarray]) -> ArtifactNoise:
    """Compare everything that both compute.

    Args:
        artifact, reference: of one checkpoint and route.
        tensors: ``(1, 3, H, W)`` float32 inputs.

    Raises:
        UserError: they are not of one checkpoint, format, route and size, or cannot be run here.
    """
    mine, other = artifact.manifest, reference.manifest
    if mine.reference.sha256 != other.reference.sha256:
        raise UserError(f"{artifact.path} and {reference.path} were made from different checkpoints; compare files of one")
    if (mine.format, mine.dcn, mine.input.size) != (other.format, other.dcn, other.input.size):
        raise UserError(f"{artifact.path} and {reference.path} differ in format, route or size; compare files that differ in precision")
    for side in (artifact, reference):
        require_readable(side)
    sums: dict[str, _Sums] = {}
    for tensor in tqdm(tensors, desc=artifact.name, unit="image", disable=None, leave=False):
        found, expected = (trace(side, in_layout(tensor, side.manifest.input.layout)) for side in (artifact, reference))
        if not sums:
            pairs = _pair(found, expected)
            sums = {name: _Sums() for name in pairs}
        for name, own in pairs.items():
            sums[name].add(expected.arrays[own], found.arrays[name], found.channels)
    decibels = {name: sums[name].decibels() for name in found.values if name in sums}
    values = tuple(
        ValueNoise(
            expected.names.get(pairs[name], pairs[name]),
            expected.values[pairs[name]].operator,
            expected.arrays[pairs[name]].shape,
            own,
            _lowest(found, name, decibels) - own,
        )
        for name, own in decibels.items()
    )
    return ArtifactNoise(artifact.name, reference.name, len(tensors), values, len(found.values) - len(pairs))


class _Sums:
    """Squares and products by channel, so that photographs of different sizes add up."""

    def __init__(self) -> None:
        self._signal, self._noise = 0.0, 0.0
        self._exact = self._product = self._found = np.zeros(1)

    def add(self, exact: np.ndarray, found: np.ndarray, channels: int) -> None:
        first, second = (_by_channel(array, channels).astype(np.float64) for array in (exact, found))
        self._signal += float(np.square(first).sum())
        if exact.ndim == 4 and first.shape[1] >= _FITTED:
            self._exact = self._exact + np.square(first).sum(axis=1)
            self._found = self._found + np.square(second).sum(axis=1)
            self._product = self._product + (first * second).sum(axis=1)
        else:
            self._noise += float(np.square(second - first).sum())

    def decibels(self) -> float:
        explained = np.divide(np.square(self._product), self._found, out=np.zeros_like(self._found), where=self._found > 0)
        noise = self._noise + max(0.0, float((self._exact - explained).sum()))
        if noise <= self._signal * 10 ** (-EXACT_DB / 10):
            return EXACT_DB
        return max(-EXACT_DB, 10 * math.log10(self._signal / noise)) if self._signal else -EXACT_DB


def _by_channel(array: np.ndarray, channels: int) -> np.ndarray:
    """``(channels, rest)`` of a feature map, ``(1, all)`` of anything else."""
    return np.moveaxis(array, channels, 0).reshape(array.shape[channels], -1) if array.ndim == 4 else array.reshape(1, -1)


def _pair(found: Trace, expected: Trace) -> dict[str, str]:
    """For values of ``found`` the one of ``expected`` that has the same shape and is most alike: names and order may differ, and an
    activation may have gone into what quantization cuts off."""
    groups: dict[tuple[int, ...], tuple[list[str], list[str]]] = {}
    for side, of_trace in enumerate((found, expected)):
        for name in of_trace.values:
            groups.setdefault(of_trace.arrays[name].shape, ([], []))[side].append(name)
    pairs = {}
    for mine, others in groups.values():
        if mine and others:
            alike = _signatures(found, mine) @ _signatures(expected, others).T
            kinds = [[of_trace.values[name].operator for name in names] for of_trace, names in ((found, mine), (expected, others))]
            same = np.array([[one == other for other in kinds[1]] for one in kinds[0]])
            # Where several are the same, in order.
            apart = np.abs(np.linspace(0, 1, len(mine))[:, None] - np.linspace(0, 1, len(others)))
            rows, columns = linear_sum_assignment(alike + _SAME_OPERATOR * same - 1e-6 * apart, maximize=True)
            pairs |= {mine[row]: others[column] for row, column in zip(rows, columns, strict=True)}
    return pairs


def _signatures(of_trace: Trace, names: Sequence[str]) -> np.ndarray:
    """``(names, numbers)``, each of unit length, whatever factors channels have."""
    rows = []
    for name in names:
        values = _by_channel(of_trace.arrays[name], of_trace.channels).astype(np.float64)
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        flat = values.ravel()
        flat = flat[np.linspace(0, flat.size - 1, min(flat.size, _COMPARED)).astype(int)]
        rows.append(flat / max(np.linalg.norm(flat), 1e-12))
    return np.stack(rows)


def _lowest(of_trace: Trace, name: str, decibels: Mapping[str, float]) -> float:
    """Of the nearest values that ``name`` is computed from and that have a figure; the network's input is exact."""

    def nearest(sources: Iterable[str], seen: set[str]) -> Iterable[float]:
        for source in sources:
            if source in decibels:
                yield decibels[source]
            elif source in of_trace.values and source not in seen:
                seen.add(source)
                yield from nearest(of_trace.values[source].sources, seen)

    return min(nearest(of_trace.values[name].sources, set()), default=EXACT_DB)
