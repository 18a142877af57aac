"""Augmentation with torchvision transforms v2: a square crop of random scale, flip, colours, resize; boxes and landmarks follow.

Random numbers come from torch's global generator, which the loader seeds for each batch: the same step always sees the same batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from model.config import ModelConfig
from model.postprocess import MIRRORED
from train.widerface_data import NO_FACES, Sample


@dataclass(frozen=True)
class Frame:
    """What is taken from a photograph, and what is done to its pixels: drawn where labels are, carried out where the pixels are."""

    photograph: int
    """Its number."""
    left: int
    top: int
    side: int
    """Of the square, pixels of the photograph; it may reach beyond it."""
    size: int
    """That it is resized to."""
    mirrored: bool
    colour: Mapping[str, Any] | None
    """Of the photometric distortion."""

    def render(self, pixels: Tensor, fill: Sequence[int]) -> Tensor:
        """``(3, size, size)`` of ``(3, H, W)``, uint8 RGB, on any device; what lies outside the photograph has the colour ``fill``."""
        height, width = pixels.shape[-2:]
        right, bottom = self.left + self.side, self.top + self.side
        inner = [max(self.left, 0), max(self.top, 0), min(right, width), min(bottom, height)]
        image = F.crop(pixels, inner[1], inner[0], inner[3] - inner[1], inner[2] - inner[0])
        # Torchvision's crop fills with zeros only.
        image = F.pad(image, [inner[0] - self.left, inner[1] - self.top, right - inner[2], bottom - inner[3]], fill=list(fill))
        image = F.resize(image, [self.size, self.size], antialias=True)
        if self.mirrored:
            image = F.horizontal_flip(image)
        return image if self.colour is None else _DISTORTION.transform(image, self.colour)


# SSD's distortion (Liu et al. 2016, section 2.2), each part with probability 1/2.
_DISTORTION = v2.RandomPhotometricDistort(brightness=(0.875, 1.125), contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=(-0.05, 0.05))


@dataclass(frozen=True)
class Crop:
    """One training image with its faces."""

    frames: tuple[Frame, ...]
    """Of its pixels: one, or those of a mosaic, row by row."""
    boxes: Tensor
    """``(F, 4)`` float32 xyxy in the crop's pixels; may reach beyond it, their centres do not."""
    landmarks: Tensor
    """``(F, 5, 2)`` float32, NaN where unknown."""
    doubtful: Tensor
    """``(F,)`` bool, see :class:`train.widerface_data.Faces`."""
    labelled: bool


class Augment:
    """Make training crops of one size.

    Args:
        size: side of the crop, pixels.
        zoom: range of the factor between photograph and crop, drawn log-uniformly. Above 1 faces grow.
        whole: probability that the crop takes in the whole photograph instead, so that large faces stay whole.
        colour: probability of the photometric distortion.
    """

    def __init__(self, size: int, zoom: tuple[float, float], whole: float, colour: float) -> None:
        self.size, self.zoom, self.whole, self.colour = size, zoom, whole, colour

    def __call__(self, sample: Sample, photograph: int = 0) -> Crop:
        """Draw a crop of a photograph, which has this number."""
        height, width = sample.pixels.shape[:2]
        faces = NO_FACES if sample.faces is None else sample.faces
        left, top, side = self._square(height, width, faces.boxes)
        mirrored = bool(torch.rand(()) < 0.5)
        colour = _draw_colour() if torch.rand(()) < self.colour else None
        boxes = tv_tensors.BoundingBoxes(faces.boxes, format="XYXY", canvas_size=(height, width), clamping_mode=None)
        points = tv_tensors.KeyPoints(faces.landmarks.reshape(-1, 2), canvas_size=(height, width))

        boxes, points = (F.resize(F.crop(value, top, left, side, side), [self.size, self.size]) for value in (boxes, points))
        if mirrored:
            boxes, points = F.horizontal_flip(boxes), F.horizontal_flip(points)
            # Torchvision mirrors points about pixel centres and boxes about edges; ours are of one system.
            points = points.as_subclass(Tensor).view(-1, 5, 2)[:, MIRRORED] + torch.tensor([1.0, 0.0])
        boxes, landmarks = boxes.as_subclass(Tensor), points.as_subclass(Tensor).view(-1, 5, 2)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centres >= 0) & (centres < self.size)).all(dim=1)
        doubtful = torch.from_numpy(faces.doubtful)[inside]
        frame = Frame(photograph, left, top, side, self.size, mirrored, colour)
        return Crop((frame,), boxes[inside], landmarks[inside], doubtful, sample.faces is not None)

    def _square(self, height: int, width: int, boxes: np.ndarray) -> tuple[int, int, int]:
        """Left, top and side of the crop in the photograph's pixels; holds the centre of some face if there is one."""
        low, high = (math.log(value) for value in self.zoom)
        if torch.rand(()) < self.whole:
            side = round(max(height, width) * _uniform(1.0, 1.5))
            return round(_uniform(width - side, 0)), round(_uniform(height - side, 0)), side
        side = max(16, round(self.size / math.exp(_uniform(low, high))))
        side = min(side, round(1.5 * max(height, width)))
        if len(boxes):
            box = boxes[int(torch.randint(len(boxes), ()))]
            centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            # A face as large as the crop would be mostly cut off: make room for it.
            side = max(side, round(1.1 * float(max(box[2] - box[0], box[3] - box[1]))))
            left, top = centre_x - _uniform(0, side), centre_y - _uniform(0, side)
        else:
            left, top = _uniform(min(0, width - side), max(0, width - side)), _uniform(min(0, height - side), max(0, height - side))
        # Not more border than there has to be.
        left = min(max(left, min(0, width - side)), max(0, width - side))
        top = min(max(top, min(0, height - side)), max(0, height - side))
        return int(left), int(top), side


def _draw_colour() -> Mapping[str, Any]:
    drawn = _DISTORTION.make_params([torch.empty(3, 1, 1)])
    permutation = drawn["channel_permutation"]
    # Frames travel from worker to loop, where each tensor would take a file descriptor.
    return drawn | {"channel_permutation": None if permutation is None else permutation.tolist()}


def mosaic(tiles: Sequence[Crop]) -> Crop:
    """A square number of crops of one size side by side; a face ends with its tile. Labelled where every tile is."""
    row, side = math.isqrt(len(tiles)), tiles[0].frames[0].size
    corners = [torch.tensor([index % row * side, index // row * side], dtype=torch.float32) for index in range(len(tiles))]
    return Crop(
        tuple(frame for tile in tiles for frame in tile.frames),
        torch.cat([tile.boxes.clamp(0, side) + corner.repeat(2) for tile, corner in zip(tiles, corners, strict=True)]),
        torch.cat([tile.landmarks + corner for tile, corner in zip(tiles, corners, strict=True)]),
        torch.cat([tile.doubtful for tile in tiles]),
        all(tile.labelled for tile in tiles),
    )


def render(frames: Sequence[Frame], photographs: Callable[[int], Tensor], fill: Sequence[int]) -> Tensor:
    """The pixels of a crop, ``(3, S, S)`` uint8 RGB.

    Args:
        frames: of the crop.
        photographs: ``(3, H, W)`` uint8 RGB, by number.
        fill: see :func:`border`.
    """
    tiles = [frame.render(photographs(frame.photograph), fill) for frame in frames]
    row = math.isqrt(len(tiles))
    return torch.cat([torch.cat(tiles[start : start + row], dim=2) for start in range(0, len(tiles), row)], dim=1)


def border(config: ModelConfig) -> list[int]:
    """The colour, RGB, of what lies outside a photograph: what the network's input calls zero."""
    return [round(value) for value in (config.mean if config.colour_order == "RGB" else config.mean[::-1])]


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def normalise(pixels: Tensor, config: ModelConfig) -> Tensor:
    """``(N, 3, H, W)`` uint8 RGB to the network's float input."""
    pixels = pixels.flip(1) if config.colour_order == "BGR" else pixels
    return pixels.float() - torch.tensor(config.mean, device=pixels.device).view(3, 1, 1)
