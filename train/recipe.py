"""Recipes: everything that decides what a training run computes, in one TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from model.config import ModelConfig, variant_config
from model.errors import UserError

Positive = Annotated[float, Meta(gt=0, le=1e9)]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
MOSAICS = (2, 4)
"""Photographs in a row of a mosaic."""

Sides = tuple[tuple[Count, ...], tuple[Count, ...], tuple[Count, ...]]


class Batch(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of batch; each step draws one kind."""

    size: Annotated[int, Meta(ge=32, le=4096)]
    """Side of the crops, pixels."""
    images: Count
    weight: Positive = 1.0
    """How often it is drawn, relative to the other kinds."""


class Data(Struct, frozen=True, forbid_unknown_fields=True):
    """Where crops come from and what is done to them."""

    batches: tuple[Batch, ...]
    longest_side: Count = 1024
    """Photographs are scaled down to this, pixels."""
    in_memory: bool = True
    """Keep all photographs decoded, also in a GPU's memory where they fit; ``false`` streams them from disk, for sets larger than the
    memory."""
    zoom: tuple[Positive, Positive] = (0.5, 2.0)
    whole: Share = 0.3
    colour: Share = 0.5
    """See :class:`train.augment.Augment`."""
    people: Share = 0.5
    """Share of unlabelled photographs among the crops, where there are any."""
    mosaic: Share = 0.0
    """Share of crops that are put together from 4 or 16 whole photographs, so that the faces of portraits become small ones (mosaic,
    Bochkovskiy et al. 2020, section 3.3)."""
    held_out: Annotated[int, Meta(ge=0)] = 0
    """Every so many-th labelled photograph is not trained on but judged by; 0 trains on all and judges by the validation set."""


class Optimizer(Struct, frozen=True, forbid_unknown_fields=True):
    name: Literal["adamw", "sgd"] = "adamw"
    rate: Positive = 1e-3
    rates: dict[str, Annotated[float, Meta(ge=0)]] = {}
    """Factors of the rate for parts of the network: ``backbone.`` fits parameters whose name begins so or has a part that begins so,
    ``offset_conv`` those of every deformable layer. The longest that fits counts; 0 freezes."""
    weight_decay: Annotated[float, Meta(ge=0)] = 1e-4
    """Not for biases and normalisation."""
    momentum: Share = 0.9
    """SGD's momentum, AdamW's first beta."""
    clip: Positive = 10.0
    """Largest norm of the gradient."""
    schedule: Literal["cosine", "step"] = "cosine"
    warm_up: Share = 0.02
    """Share of the run in which the rate rises from 0."""
    milestones: tuple[Share, ...] = (0.76, 0.88)
    """``step`` divides the rate by ten at these shares of the run (published: epochs 190 and 220 of 250)."""


class Losses(Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of the parts; see :mod:`train.loss`."""

    distillation: Annotated[float, Meta(ge=0)] = 1.0
    """Of all terms that compare with the teacher."""
    distillation_labelled: Share = 1.0
    """Factor of the teacher's word on what is background where labels say so, too. On what is a face, labels have the last word."""
    mirrored_teacher: bool = False
    """The teacher also looks at the mirror image and answers with the mean: a little better than itself, at twice its cost."""
    detection: Annotated[float, Meta(ge=0)] = 1.0
    """Of all terms that compare with labels."""
    detection_from: Share = 0.0
    """Share of the run after which labels count."""
    assignment: Literal["iou", "atss"] = "iou"
    """Which anchors are to find a face: see :func:`train.loss.match`."""
    overlap: bool = False
    """Labels are about overlap: boxes learn by DIoU, scores learn whether the box will be good. See :func:`train.loss.overlap_loss`."""
    box: Positive = 2.0
    landmark: Positive = 1.0
    smallest_face: Annotated[float, Meta(ge=0)] = 8.0
    """Labelled faces with a side below this many pixels of the crop are ignored."""
    largest_face: Positive | None = None
    """So are those with a longer side above this, so that the teacher alone has a say about them: a few photographs teach where small
    faces are, and would take from what a network knows of large ones."""


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    variant: str
    data: Data
    offset_limit: Positive | None = None
    """Of the deformable layers, pixels."""
    plain: bool = False
    """Leave out attention and deformable layers. A step takes less than half of the time, and a run that goes on with them starts from the
    same function, see :func:`train.transfer.transplant`."""
    min_sizes: Sides | None = None
    """Anchor sides of each level, pixels, where they are not to be the variant's own."""
    seed: int = 0
    steps: Count | None = None
    minutes: Positive | None = None
    """Length of the run: one of the two. Minutes are of training, whatever the machine's speed; evaluation is not counted."""
    batch_norm: Literal["frozen", "trained"] = "trained"
    """``frozen`` keeps inherited statistics: for small batches and transplanted weights."""
    optimizer: Optimizer = Optimizer()
    losses: Losses = Losses()
    average: Annotated[float, Meta(ge=0, lt=1)] = 0.998
    """Decay per step of the averaged weights, which are what is judged and kept."""
    blend: tuple[Annotated[float, Meta(gt=0, lt=1)], ...] = ()
    """At the end, weights so far on the way from the first to the last are judged and kept, too (WiSE-FT, Wortsman et al. 2022, section
    3): they have forgotten less of what a few photographs do not show."""
    checkpoint_minutes: Positive = 5.0
    evaluate_minutes: Positive = 20.0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("exactly one of steps and minutes is needed")
        if self.data.held_out == 1:
            raise ValueError("data.held_out = 1 leaves no photograph to train on")
        if not self.data.batches:
            raise ValueError("data.batches is empty")
        if self.data.mosaic and any(batch.size % max(MOSAICS) for batch in self.data.batches):
            raise ValueError(f"data.mosaic needs sizes that are multiples of {max(MOSAICS)}")
        if self.losses.mirrored_teacher and any(batch.size % 32 for batch in self.data.batches):
            raise ValueError("mirrored_teacher needs sizes that are multiples of 32")

    @property
    def config(self) -> ModelConfig:
        config = variant_config(self.variant)
        if self.plain:
            config = msgspec.structs.replace(config, attention="none", deform=())
        return msgspec.structs.replace(config, offset_limit=self.offset_limit, min_sizes=self.min_sizes or config.min_sizes)


def load_recipe(path: Path) -> Recipe:
    """Read a TOML file; a :class:`UserError` names the field that is unknown, missing or illegal."""
    try:
        recipe = msgspec.toml.decode(path.read_bytes(), type=Recipe)
        variant_config(recipe.variant)  # an unknown one should be found now
        return recipe
    except FileNotFoundError:
        raise UserError(f"no such recipe: {path}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: {error}") from None
