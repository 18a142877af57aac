"""The network alone, on tensors that were prepared elsewhere: what runs on a device that has Python.

``python -m runtime_bench.forward ARTIFACT INPUTS.npy OUTPUTS.npz`` runs the artifact on each of ``(N, 3, H, W)`` float32. It imports
numpy, the runtime and no torch.
"""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import sys
from pathlib import Path

import numpy as np

from model.artifact import open_artifact
from model.cli import Parser, run_command
from model.preprocess import in_layout
from runtime_bench.runtimes import Outputs, open_runtime


def main() -> None:
    parser = Parser(prog="python -m runtime_bench.forward", description="Run an artifact on prepared tensors.")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("inputs", type=Path, help="(N, 3, H, W) float32, .npy")
    parser.add_argument("outputs", type=Path, help="scores, box_deltas, landmark_deltas, each with N rows; runtime: what it was, .npz")
    args = parser.parse_args()
    artifact = open_artifact(args.artifact)
    runtime = open_runtime(artifact, threads=1)
    layout = artifact.manifest.input.layout
    # Runtimes give views of buffers that they use again.
    runs = [Outputs(*map(np.array, runtime.run(in_layout(tensor[None], layout)))) for tensor in np.load(args.inputs, mmap_mode="r")]
    np.savez(
        args.outputs,
        runtime=np.array([runtime.name, runtime.version, runtime.accelerator]),
        **{name: np.stack(values) for name, values in zip(Outputs._fields, zip(*runs, strict=True), strict=True)},
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
