"""A TFLite model's operators, and which of them a delegate has taken."""

from __future__ import annotations

import math
from typing import NamedTuple

from ai_edge_litert.interpreter import Interpreter

_DELEGATE = "DELEGATE"


class Node(NamedTuple):
    """One operator of the file."""

    index: int
    op: str
    """As the TFLite schema calls it."""
    name: str
    """Of its first output."""
    inputs: tuple[tuple[int, ...], ...]
    """Shapes; ``()`` for one that is left out."""
    outputs: tuple[tuple[int, ...], ...]
    partition: int | None
    """Which of the delegate's parts of the graph it has gone into, in order of execution; ``None`` where it is left to LiteRT."""

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates, ``None`` for an operator that multiplies no matrices. Filters are OHWI, feature maps NHWC."""
        if self.op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            positions = math.prod(self.outputs[0][:-1])
            return positions * math.prod(self.inputs[1])
        if self.op == "TRANSPOSE_CONV":  # output shape, filter, input
            return math.prod(self.inputs[2][:-1]) * math.prod(self.inputs[1])
        if self.op == "BATCH_MATMUL":
            return math.prod(self.outputs[0]) * (math.prod(self.inputs[0]) // math.prod(self.outputs[0][:-1]))
        return None


def read_nodes(interpreter: Interpreter) -> list[Node]:
    """The operators of an interpreter whose tensors are allocated, in the file's order."""
    operators = interpreter._get_ops_details()  # the only list that says what went to the delegate
    shapes = {tensor["index"]: tuple(map(int, tensor["shape"])) for tensor in interpreter.get_tensor_details()}
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    own = [operator for operator in operators if operator["op_name"] != _DELEGATE]
    makers = {int(tensor): operator for operator in own for tensor in operator["outputs"]}
    partitions: dict[int, int] = {}
    for number, delegate in enumerate(operator for operator in operators if operator["op_name"] == _DELEGATE):
        # Backwards from what the part gives to what it takes.
        taken, open_ = set(map(int, delegate["inputs"])), list(map(int, delegate["outputs"]))
        while open_:
            tensor = open_.pop()
            if tensor in taken or tensor not in makers:
                continue
            taken.add(tensor)
            partitions[makers[tensor]["index"]] = number
            open_ += map(int, makers[tensor]["inputs"])
    return [
        Node(
            index=operator["index"],
            op=operator["op_name"],
            name=names[int(operator["outputs"][0])],
            inputs=tuple(shapes.get(int(tensor), ()) for tensor in operator["inputs"]),
            outputs=tuple(shapes.get(int(tensor), ()) for tensor in operator["outputs"]),
            partition=partitions.get(operator["index"]),
        )
        for operator in own
    ]
