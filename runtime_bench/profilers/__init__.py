"""Times of single operators, one module for each runtime.

Each has a function ``(artifact, tensor, threads, runs) -> list[OperatorTime]`` that runs the artifact on ``tensor``
(``(1, 3, H, W)`` float32), :data:`WARMUP` times and then ``runs`` times with every operator timed by the runtime itself.
"""

from __future__ import annotations

from typing import NamedTuple

WARMUP = 5


class OperatorTime(NamedTuple):
    """One operator as the runtime executes it: after its own rewriting of the graph."""

    op: str
    """Kind, in the runtime's words."""
    name: str
    ms: float
    """Median over runs."""
    macs: int | None
    """Multiply-accumulates; ``None`` for an operator that is not counted."""
    bytes: int | None
    """Read and written: inputs, weights, outputs; ``None`` where the runtime does not say."""
