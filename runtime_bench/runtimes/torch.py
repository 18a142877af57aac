"""The FP32 torch model: what every other runtime is judged against."""

from __future__ import annotations

import numpy as np
import torch

from model.detector import Detector
from runtime_bench.runtimes import Outputs


class TorchRuntime:
    """Runs a network as it was trained, on the CPU, on torch's own number of threads."""

    name = "torch"
    version = torch.__version__
    simulated = False
    accelerator = "cpu"

    def __init__(self, detector: Detector) -> None:
        self._detector = detector.eval()

    def run(self, tensor: np.ndarray) -> Outputs:
        with torch.inference_mode():
            raw = self._detector(torch.from_numpy(tensor))
            scores = raw.class_logits.softmax(dim=-1)[..., 1]
        return Outputs(*(value[0].numpy() for value in (scores, raw.box_deltas, raw.landmark_deltas)))
