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
    backbone: Literal["mobilenetv1_025"] = "mobilenetv1_025"
    neck: Literal["fpn", "wfpn"] = "fpn"
    """``fpn`` (Lin et al. 2017) or ``wfpn`` (learned, spatially varying merge weights)."""
    context: Literal["ssh", "scm"] = "ssh"
    """``ssh`` (Najibi et al. 2017, three branches) or ``scm`` (four branches and a fusing 3x3 convolution)."""
    context_fusion: Literal["none", "dense", "depthwise"] = "none"
    """The 3x3 convolution behind the concatenated branches of ``scm``; ``none`` for ``ssh``."""
    attention: Literal["none", "edam"] = "none"
    """``edam`` puts channel and spatial attention behind the backbone, the neck and the context module of every level."""
    deform: tuple[Literal["neck", "context"], ...] = ()
    """Where 3x3 convolutions are deformable: the neck's merges, the context modules' branches."""
    offset_limit: Annotated[float, Meta(gt=0)] | None = None
    """Offsets are clamped to so many pixels either way; ``None`` for no limit."""
    channels: Annotated[int, Meta(ge=4, le=1024, multiple_of=4)] = 64
    """Width of neck, context and head inputs."""
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
        if (self.context == "scm") == (self.context_fusion == "none"):
            raise ValueError(f"context {self.context} does not go with context_fusion {self.context_fusion}")
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
    )
}
"""The rows of the published table, in its order."""


def variant_config(name: str) -> ModelConfig:
    """The stock configuration called ``name``; a :class:`UserError` that lists the names otherwise."""
    if name not in VARIANTS:
        raise UserError(f"unknown variant {name!r}; choose one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
