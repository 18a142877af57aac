"""The model zoo as data: one ``ModelConfig`` says everything that builds a network.

A variant is a named configuration, never a class of its own. A checkpoint carries its configuration, so a file is enough to
rebuild the network that its weights belong to.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from model.errors import UserError

Positive = Annotated[int, Meta(ge=1, le=4096)]
_Sizes = Annotated[tuple[Positive, ...], Meta(max_length=8)]


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What a network is made of. The types list all legal values; they are checked when a checkpoint is read."""

    variant: str
    """Name of the row in the zoo; the key of :data:`VARIANTS` for the stock ones."""
    backbone: Literal["mobilenetv1_025", "mobilenetv2", "mobilenetv2_x6", "resnet50"] = "mobilenetv1_025"
    """See :mod:`model.backbones`."""
    neck: Literal["fpn", "wfpn", "bifpn"] = "fpn"
    """``fpn`` (Lin et al. 2017), ``wfpn`` (learned, spatially varying merge weights) or ``bifpn`` (down and up again, one weight a map)."""
    merge_rank: Annotated[int, Meta(ge=1, le=1024)] | None = None
    """The 3x3 convolution behind the neck's finest sum, the costliest of all, has so many outputs, which a pointwise one makes
    :attr:`channels` of; ``None`` for a single convolution."""
    context: Literal["ssh", "scm", "scm_shared"] = "ssh"
    """``ssh`` (Najibi et al. 2017, three branches), ``scm`` (four branches and a fusing 3x3 convolution), or ``scm_shared``: the same with
    one layer where two read the same map, so that deformable ones share their offsets."""
    context_fusion: Literal["none", "dense", "depthwise"] = "none"
    """The 3x3 convolution behind the concatenated branches of either SCM; ``none`` for ``ssh``."""
    attention: Literal["none", "edam"] = "none"
    """``edam`` puts channel and spatial attention behind the backbone, the neck and the context module of every level."""
    attention_rank: Annotated[int, Meta(ge=1, le=49)] | None = None
    """The 49x49 kernel of attention is a sum of so many products of a row and a column; ``None`` for any kernel."""
    activation: Literal["leaky_relu", "elu", "relu"] = "leaky_relu"
    """Behind the convolutions of neck and context; the backbone has its own."""
    deform: tuple[Literal["neck", "context"], ...] = ()
    """Where 3x3 convolutions are deformable: the neck's merges, the context modules' branches."""
    deform_levels: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)
    """At which levels they are, 0 being the finest."""
    offset_limit: Annotated[float, Meta(gt=0)] | None = None
    """Offsets are clamped to so many pixels either way; ``None`` for no limit."""
    channels: Annotated[int, Meta(ge=4, le=1024, multiple_of=4)] = 64
    """Width of neck, context and head inputs."""
    landmarks: bool = True
    """Whether there are heads for five landmarks; ``False`` detects only."""
    strides: tuple[Positive, Positive, Positive] = (8, 16, 32)
    """Input pixels per cell, level by level."""
    min_sizes: tuple[_Sizes, _Sizes, _Sizes] = ((16, 32), (64, 128), (256, 512))
    """Anchor sides in input pixels, level by level."""
    variances: tuple[float, float] = (0.1, 0.2)
    """Box coding divisors for centres and for log sizes (SSD, Liu et al. 2016)."""
    mean: tuple[float, float, float] = (104.0, 117.0, 123.0)
    """Subtracted from the 0 to 255 input, in the channel order of :attr:`colour_order`."""
    colour_order: Literal["BGR", "RGB"] = "BGR"

    def __post_init__(self) -> None:
        if (self.context == "ssh") != (self.context_fusion == "none"):
            raise ValueError(f"context {self.context} does not go with context_fusion {self.context_fusion}")
        if self.neck == "bifpn" and ("neck" in self.deform or self.merge_rank is not None):
            raise ValueError("the convolutions of neck bifpn are depthwise; they take no merge_rank, and deform can be context only")
        if self.merge_rank is not None and "neck" in self.deform and 0 in self.deform_levels:
            raise ValueError("the neck's finest convolution is deformable and cannot have a merge_rank")
        if len({len(sizes) for sizes in self.min_sizes}) != 1 or not self.min_sizes[0]:
            raise ValueError("every level needs the same number of min_sizes, at least one")

    @property
    def anchors_per_cell(self) -> int:
        return len(self.min_sizes[0])

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Inverse of :meth:`to_json`; a field that is unknown, missing or illegal is a :class:`UserError` that names it."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise UserError(f"model configuration: {error}; written by another version?") from None


VARIANTS: dict[str, ModelConfig] = {
    config.variant: config
    for config in (
        ModelConfig("retinaface"),
        ModelConfig("retinaface_wfpn", neck="wfpn"),
        ModelConfig("retinaface_wfpn_scm", neck="wfpn", context="scm", context_fusion="dense"),
        ModelConfig("acwface", neck="wfpn", context="scm", context_fusion="dense", attention="edam"),
        ModelConfig("acwface_dcn", neck="wfpn", context="scm", context_fusion="depthwise", attention="edam", deform=("neck", "context")),
        ModelConfig(
            "acwface_dcn_lite",
            neck="wfpn",
            merge_rank=32,
            context="scm_shared",
            context_fusion="depthwise",
            attention="edam",
            attention_rank=2,
            deform=("context",),
            deform_levels=(1, 2),
        ),
        ModelConfig("biretina", neck="bifpn", activation="elu"),
        ModelConfig("retinaface_mobilenetv2", backbone="mobilenetv2", strides=(4, 8, 16), landmarks=False),
        ModelConfig("retinaface_mobilenetv2_x6", backbone="mobilenetv2_x6", strides=(4, 8, 16), landmarks=False),
        ModelConfig("retinaface_resnet50", backbone="resnet50", channels=256, activation="relu"),
    )
}
"""The rows of the published table, in its order; a network of ours that keeps what the last of them promises; relatives."""


def variant_config(name: str) -> ModelConfig:
    """The stock configuration called ``name``; a :class:`UserError` that lists the names otherwise."""
    if name not in VARIANTS:
        raise UserError(f"unknown variant {name!r}; choose one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
