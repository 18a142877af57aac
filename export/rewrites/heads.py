"""The network's outputs as runtimes should give them, and ``merge-heads``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.detector import Detector


class DeployOutputs(NamedTuple):
    """Of one image, in the order of the exported model's outputs; their names there are these."""

    scores: Tensor
    """``(1, A)``: face probability."""
    box_deltas: Tensor
    """``(1, A, 4)``"""
    landmark_deltas: Tensor
    """``(1, A, 10)``; no output at all of a network that has no landmarks."""


class DeployModel(nn.Module):
    """``(1, 3, H, W) -> DeployOutputs``: the network as it is exported.

    ``merged_heads`` is ``None`` until :func:`merge_heads` fills it; then the detector's own heads are not used.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.merged_heads: nn.ModuleList | None = None

    def forward(self, image: Tensor) -> DeployOutputs | tuple[Tensor, Tensor]:
        outputs = self._compute(image)
        return outputs if self.detector.config.landmarks else outputs[:2]

    def _compute(self, image: Tensor) -> DeployOutputs:
        if self.merged_heads is None:
            raw = self.detector(image)
            return DeployOutputs(raw.class_logits.softmax(dim=-1)[..., 1], raw.box_deltas, raw.landmark_deltas)
        values = _VALUES if self.detector.config.landmarks else _VALUES[:2]
        rows = torch.cat(
            [
                # One row for each anchor: cells row by row, the anchors of a cell next to each other.
                head(feature).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, sum(values)))
                for head, feature in zip(self.merged_heads, self.detector.features(image), strict=True)
            ],
            dim=1,
        )
        logit, boxes, *landmarks = rows.split(values, dim=2)
        return DeployOutputs(torch.sigmoid(logit).flatten(1), boxes, *(landmarks or [rows[..., :0]]))


_VALUES = (1, 4, 10)
"""Of an anchor: logit, box, landmarks."""


@torch.no_grad()
def merge_heads(model: DeployModel) -> None:
    """``merge-heads``: the 1x1 heads of a level become one, and the softmax over two classes the sigmoid of their difference.

    One layout change for each level instead of three, and half the class outputs.
    """
    detector = model.detector
    model.merged_heads = nn.ModuleList()
    for heads in zip(*detector.heads, strict=True):
        weight, bias = (
            torch.cat([_by_anchor(values, detector.config.anchors_per_cell) for values in side], dim=1).flatten(0, 1)
            for side in ([head.weight for head in heads], [head.bias for head in heads])
        )
        merged = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
        merged.weight.copy_(weight)
        merged.bias.copy_(bias)
        model.merged_heads.append(merged)
    del detector.class_heads, detector.box_heads, detector.landmark_heads


def _by_anchor(parameter: Tensor, anchors: int) -> Tensor:
    """``(anchors * values, ...)`` to ``(anchors, values, ...)``; of two class values their difference, face less background."""
    rows = parameter.unflatten(0, (anchors, -1))
    return rows[:, 1:] - rows[:, :1] if rows.shape[1] == 2 else rows
