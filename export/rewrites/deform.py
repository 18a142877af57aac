"""Deformable layers on their way out of torch: ``merge-predictions``, ``fold-norm`` and ``mix-then-sample``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from export.deform_routes import Route
from export.rewrites.heads import DeployModel
from export.rewrites.replace import replace_modules
from model.deform_conv import TAPS, DeformConv2d


class DeployDeformConv(nn.Module):
    """What a :class:`model.deform_conv.DeformConv2d` computes, by the operator of a route, in parts that rewrites change."""

    def __init__(self, layer: DeformConv2d, route: Route) -> None:
        super().__init__()
        self.predictors = nn.ModuleList([layer.offset_conv, layer.modulator_conv])
        """What predicts offsets and modulators: two convolutions, or one after :func:`merge_predictions`."""
        self.weight = layer.weight
        self.bias: nn.Parameter | None = None
        self.slope = 1.0
        """Of the LeakyReLU behind the bias; 1 for none."""
        self.offset_limit = layer.offset_limit
        self.route = route
        self.mixed = False
        """Whether channels are mixed before they are sampled."""
        self.parted = False
        """Whether they are sampled a part at a time."""

    def forward(self, x: Tensor) -> Tensor:
        predicted = [self.route.predict(x, predictor) for predictor in self.predictors]
        operator = self.route.mixed if self.mixed else self.route.parted if self.parted else self.route.direct
        return operator(x, predicted, self.weight, self.bias, self.offset_limit, self.slope)


def use_route(model: DeployModel, route: Route) -> None:
    """Put the operator of a route into every deformable layer."""
    replace_modules(model, DeformConv2d, lambda layer: DeployDeformConv(layer, route))


@torch.no_grad()
def merge_predictions(model: DeployModel) -> None:
    """``merge-predictions``: the convolutions that predict offsets and modulators read the same input, so they become one.

    Its 27 outputs fill two SIMD registers of 16; 18 and 9 take two and one.
    """
    for layer in _layers(model):
        offset, modulator = layer.predictors
        merged = nn.Conv2d(offset.in_channels, 3 * TAPS, 3, padding=1)
        merged.weight.copy_(torch.cat([offset.weight, modulator.weight]))
        merged.bias.copy_(torch.cat([offset.bias, modulator.bias]))
        layer.predictors = nn.ModuleList([merged])


@torch.no_grad()
def fold_norm(model: DeployModel) -> None:
    """``fold-norm``: the batch norm behind a deformable layer moves into its weight and bias, a LeakyReLU into its operator."""
    for block in list(model.modules()):
        if isinstance(block, nn.Sequential) and isinstance(block[0], DeployDeformConv):
            layer, norm, *activation = block
            layer.weight, layer.bias = fuse_conv_bn_weights(
                layer.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            block[1] = nn.Identity()
            if activation and isinstance(activation[0], nn.LeakyReLU):
                layer.slope = activation[0].negative_slope
                block[2] = nn.Identity()


def mix_then_sample(model: DeployModel) -> None:
    """``mix-then-sample``: sampling acts on space and a tap's matrix on channels, so they commute; the matrices come first where the
    route's operator gains from it."""
    for layer in _layers(model):
        outputs, channels = layer.weight.shape[:2]
        layer.mixed = layer.route.gains_from_mixing(channels, outputs)


def sample_in_parts(model: DeployModel) -> None:
    """``sample-in-parts``: layers that sample many channels do so a part at a time, which takes less memory and no longer."""
    for layer in _layers(model):
        layer.parted = layer.route.parted is not None and not layer.mixed and layer.weight.shape[1] > 16


def _layers(model: DeployModel) -> list[DeployDeformConv]:
    return [module for module in model.modules() if isinstance(module, DeployDeformConv)]
