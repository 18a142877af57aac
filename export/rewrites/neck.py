"""``weigh-then-upsample``, for the weighted feature pyramid."""

from __future__ import annotations

import torch
from torch import Tensor

from export.rewrites.heads import DeployModel
from export.rewrites.replace import replace_modules
from model.necks import WFPN, upsample


class EarlyWFPN(WFPN):
    """Finds the weights, and applies them to the coarser level, before upsampling: nearest neighbours are the same either way."""

    def __init__(self, neck: WFPN) -> None:
        super().__init__([], 0)
        self.laterals, self.merges, self.alphas = neck.laterals, neck.merges, neck.alphas

    def combine(self, level: int, coarse: Tensor, lateral: Tensor) -> Tensor:
        alpha = torch.sigmoid(self.alphas[level](coarse))
        return upsample(alpha * coarse, lateral) + upsample(1 - alpha, lateral) * lateral


def weigh_then_upsample(model: DeployModel) -> None:
    """See :class:`EarlyWFPN`."""
    replace_modules(model, WFPN, EarlyWFPN)
