"""What a TFLite file is made of, and what accelerators make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tabulate import tabulate

from model.artifact import Artifact
from model.errors import UserError
from runtime_bench.latency import require_readable
from runtime_bench.runtimes.litert import open_interpreter
from runtime_bench.tflite_graph import Node, read_nodes


class Left(NamedTuple):
    """Operators of one kind that an accelerator does not take."""

    op: str
    count: int
    reason: str


_XNNPACK_REASONS = {
    "GATHER": "no gather",
    "GATHER_ND": "no gather",
    "CAST": "no conversion to integers",
    "STRIDED_SLICE": "no slices in steps",
    "RESIZE_NEAREST_NEIGHBOR": "resizes bilinearly only",
} | dict.fromkeys(("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"), "no arithmetic on integers")

_GPU_OPERATORS = (
    "ABS ADD ADD_N ATAN2 AVERAGE_POOL_2D BATCH_MATMUL CAST CEIL CONCATENATION CONV_2D COS CUMSUM DENSIFY DEPTHWISE_CONV_2D DEPTH_TO_SPACE "
    "DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER "
    "GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG "
    "NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU QUANTIZE REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE "
    "STABLEHLO_CLAMP STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV"
)
"""Published for LiteRT's GPU delegate: ``CheckGpuDelegateCompatibility`` in tensorflow/lite/tools/versioning/gpu_compatibility.cc."""
_OURS = ("DeformSample", "DeformConvTiled")
"""CUSTOM operators, which the project's delegate takes."""
_BOUNDED = "--dcn bounded, where offsets are limited"
_REMEDIES = {"decomposed": dict.fromkeys(("GATHER", "CAST", "ADD"), _BOUNDED), "custom": dict.fromkeys(_OURS, _BOUNDED)}
"""By route: what is not in the graph of another."""


def explain(artifact: Artifact) -> str:
    """Operators, what XNNPACK takes, what LiteRT's GPU delegate does not take by its published list.

    Raises:
        UserError: the artifact is no TFLite file, or LiteRT refuses it.
    """
    if artifact.manifest.format != "tflite":
        raise UserError(f"{artifact.path} is {artifact.manifest.format}; explain reads tflite artifacts: python -m export tflite makes one")
    require_readable(artifact)
    nodes = read_nodes(open_interpreter(artifact, threads=1, xnnpack=True))
    remedies = _REMEDIES.get(artifact.manifest.dcn, {})
    ours = [node for node in nodes if node.op in _OURS]
    taken = [node for node in nodes if node.partition is not None and node not in ours]
    parts = len({node.partition for node in taken})
    return "\n".join(
        [
            f"{artifact.name}: {len(nodes)} operators",
            ", ".join(f"{op} {count}" for op, count in Counter(node.op for node in nodes).most_common()),
            "",
            *([f"{artifact.manifest.runtime.library.name}, the project's delegate, takes {len(ours)} of them", ""] if ours else []),
            f"XNNPACK takes {len(taken)} of them, in {parts} part{'s' * (parts != 1)} of the graph"
            + _table(left_by_xnnpack(nodes), remedies),
            "",
            "LiteRT's GPU delegate, by its published list, takes all of them"
            if not (left := left_by_gpu(nodes))
            else f"LiteRT's GPU delegate, by its published list, does not take {sum(row.count for row in left)} of them"
            + _table(left, remedies),
        ]
    )


def left_by_xnnpack(nodes: Iterable[Node]) -> list[Left]:
    """What stays with LiteRT's own kernels."""
    counts = Counter(node.op for node in nodes if node.partition is None)
    return [Left(op, count, _XNNPACK_REASONS.get(op, "its conditions for this operator are not met")) for op, count in counts.most_common()]


def left_by_gpu(nodes: Iterable[Node]) -> list[Left]:
    """What the published list of the GPU delegate excludes. It is necessary, not sufficient: only a phone's own GPU can say more."""
    counts = Counter((node.op, reason) for node in nodes if (reason := _gpu_objection(node)))
    return [Left(op, count, reason) for (op, reason), count in counts.most_common()]


def _gpu_objection(node: Node) -> str:
    if node.op in _OURS:
        return "runs on the CPU alone"
    if node.op not in _GPU_OPERATORS.split():
        return "not on the list"
    if node.op == "GATHER" and len(node.inputs[1]) != 1:
        return f"indices of {len(node.inputs[1])} axes; the list has 1"
    if node.op in ("SLICE", "STRIDED_SLICE") and len(node.inputs[0]) not in (3, 4):
        return f"tensors of {len(node.inputs[0])} axes; the list has 3 and 4"
    return ""


def _table(rows: Sequence[Left], remedies: Mapping[str, str]) -> str:
    told = [(*row, remedies.get(row.op, "")) for row in rows]
    return "; left:\n" + tabulate(told, ["operator", "count", "why", "without it"], disable_numparse=True) if told else ""
