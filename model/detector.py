"""The network: a :class:`ModelConfig` in, a module out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.attention import EDAM, SpatialAttention
from model.backbones import BACKBONES
from model.config import ModelConfig
from model.context import CONTEXTS
from model.deform_conv import DeformConv2d, Operator, mix_then_sample
from model.layers import LEAKY_SLOPE
from model.necks import NECKS


class RawOutputs(NamedTuple):
    """What the network computes for the ``A`` anchors of an image, in the order of :func:`model.anchors.make_anchors`."""

    class_logits: Tensor
    """``(N, A, 2)``: background, face."""
    box_deltas: Tensor
    """``(N, A, 4)``: coded centre and size, see :func:`model.postprocess.decode_boxes`."""
    landmark_deltas: Tensor
    """``(N, A, 10)``: five coded (x, y): left eye, right eye, nose, left and right corner of the mouth, as seen in the image.
    ``(N, A, 0)`` of a network that has no landmarks."""


class Detector(nn.Module):
    """RetinaFace (Deng et al. 2020) and its relatives: backbone, neck, context, two or three 1x1 heads for each level.

    Input: ``(N, 3, H, W)`` float, channels and mean as the configuration has them; any H and W. Output: :class:`RawOutputs`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = BACKBONES[config.backbone]()
        widths = self.backbone.out_channels
        levels = len(config.strides)
        deform = {place: config.deform_levels if place in config.deform else () for place in ("neck", "context")}
        self.neck = NECKS[config.neck](widths, config.channels, deform["neck"], config.activation, config.merge_rank)
        self.context = nn.ModuleList(
            CONTEXTS[config.context](config.channels, config.context_fusion, level in deform["context"], config.activation)
            for level in range(levels)
        )
        self.backbone_attention = nn.ModuleList(_attention(config, width) for width in widths)
        self.neck_attention = nn.ModuleList(_attention(config, config.channels) for _ in range(levels))
        self.context_attention = nn.ModuleList(_attention(config, config.channels) for _ in range(levels))
        self.class_heads, self.box_heads, self.landmark_heads = (
            nn.ModuleList(nn.Conv2d(config.channels, config.anchors_per_cell * values, 1) for _ in range(levels if values else 0))
            for values in (2, 4, 10 if config.landmarks else 0)
        )

        for module in self.modules():
            if isinstance(module, DeformConv2d):
                module.offset_limit = config.offset_limit

    def features(self, image: Tensor) -> list[Tensor]:
        """What the heads read: ``(N, channels, ceil(H / stride), ceil(W / stride))`` for each level, finest first."""
        features = _each(self.backbone_attention, self.backbone(image))
        features = _each(self.neck_attention, self.neck(features))
        return _each(self.context_attention, _each(self.context, features))

    def forward(self, image: Tensor) -> RawOutputs:
        features = self.features(image)
        logits = _gather(self.class_heads, features, 2)
        landmarks = _gather(self.landmark_heads, features, 10) if self.config.landmarks else logits[..., :0]
        return RawOutputs(logits, _gather(self.box_heads, features, 4), landmarks)

    @property
    def heads(self) -> list[nn.ModuleList]:
        """Those for class, box and, where there are any, landmarks: a 1x1 convolution for each level."""
        return [heads for heads in (self.class_heads, self.box_heads, self.landmark_heads) if len(heads)]

    def use_training_forms(self, operator: Operator | None = mix_then_sample) -> None:
        """Compute the same function (up to rounding) in forms whose backward pass is fast: several times on a CPU.

        Not for export or cost accounting, which read the ordinary forms.

        Args:
            operator: of the deformable layers; ``None`` goes back to the ordinary forms everywhere.
        """
        for module in self.modules():
            if isinstance(module, DeformConv2d):
                module.training_operator = operator
            elif isinstance(module, SpatialAttention):
                module.by_fourier = operator is not None


def _attention(config: ModelConfig, channels: int) -> nn.Module:
    return EDAM(channels, config.attention_rank) if config.attention == "edam" else nn.Identity()


def _each(modules: nn.ModuleList, features: list[Tensor]) -> list[Tensor]:
    return [module(feature) for module, feature in zip(modules, features, strict=True)]


def _gather(heads: nn.ModuleList, features: list[Tensor], values: int) -> Tensor:
    """One row for each anchor: cells row by row, the anchors of a cell next to each other, levels one after the other."""
    rows = [head(feature).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, values)) for head, feature in zip(heads, features, strict=True)]
    return torch.cat(rows, dim=1)


def build_detector(config: ModelConfig, seed: int | None = None) -> Detector:
    """A network in eval mode with fresh weights.

    Args:
        config: what to build.
        seed: ``None`` for torch's own initialisation from its current random state, where training starts (offsets zero). A number for
            weights that exercise every part of the network instead: signals keep their scale through all layers, and offsets and
            modulators are not zero (offsets of a pixel or two).
    """
    if seed is None:
        return Detector(config).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        detector = Detector(config)
        for module in detector.modules():
            if isinstance(module, (nn.Conv2d, DeformConv2d)):
                nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the plain average over all batches seen, here of one
        for layer in [module for module in detector.modules() if isinstance(module, DeformConv2d)]:
            for conv in (layer.offset_conv, layer.modulator_conv):
                conv.weight.mul_(0.01)  # offsets that follow rough, untrained features closely amplify rounding from layer to layer
                nn.init.normal_(conv.bias)
        for heads, gain in ((detector.class_heads, 0.05), (detector.box_heads, 0.001), (detector.landmark_heads, 0.001)):
            for head in heads:
                head.weight.mul_(gain)  # neither all scores 0 or 1, nor boxes of thousands of pixels
        coarse = nn.functional.interpolate(torch.randn(2, 3, 8, 8), size=(256, 256), mode="bicubic")  # smooth, as photographs are
        detector.train()(coarse * 64 + torch.randn(2, 3, 256, 256) * 8)
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1
    return detector.eval()
