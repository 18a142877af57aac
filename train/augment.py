"""Augmentation with torchvision transforms v2: a square crop of random scale, flip, colours, resize; boxes and landmarks follow.

Random numbers come from torch's global generator, which the loader seeds for each batch: the same step always sees the same batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
class Crop:
    """One training image with its faces."""

    pixels: Tensor
    """``(3, S, S)`` uint8 RGB."""
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
        config: of the network, for the colour that fills what lies outside the photograph.
        size: side of the crop, pixels.
        zoom: range of the factor between photograph and crop, drawn log-uniformly. Above 1 faces grow.
        whole: probability that the crop takes in the whole photograph instead, so that large faces stay whole.
        colour: probability of the photometric distortion.
    """

    def __init__(self, config: ModelConfig, size: int, zoom: tuple[float, float], whole: float, colour: float) -> None:
        mean = config.mean if config.colour_order == "RGB" else config.mean[::-1]
        self.fill = [round(value) for value in mean]
        self.size, self.zoom, self.whole = size, zoom, whole
        # SSD's distortion (Liu et al. 2016, section 2.2), each part with probability 1/2.
        self.distort = v2.RandomApply(
            [v2.RandomPhotometricDistort(brightness=(0.875, 1.125), contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=(-0.05, 0.05))],
            p=colour,
        )

    def __call__(self, sample: Sample) -> Crop:
        height, width = sample.pixels.shape[:2]
        faces = NO_FACES if sample.faces is None else sample.faces
        left, top, side = self._square(height, width, faces.boxes)
        image = tv_tensors.Image(torch.tensor(sample.pixels).permute(2, 0, 1))
        boxes = tv_tensors.BoundingBoxes(faces.boxes, format="XYXY", canvas_size=(height, width), clamping_mode=None)
        points = tv_tensors.KeyPoints(faces.landmarks.reshape(-1, 2), canvas_size=(height, width))

        image, boxes, points = (self._cut(value, left, top, side) for value in (image, boxes, points))
        if torch.rand(()) < 0.5:
            image, boxes, points = (F.horizontal_flip(value) for value in (image, boxes, points))
            # Torchvision mirrors points about pixel centres and boxes about edges; ours are of one system.
            points = points.as_subclass(Tensor).view(-1, 5, 2)[:, MIRRORED] + torch.tensor([1.0, 0.0])
        image = self.distort(image)
        boxes, landmarks = boxes.as_subclass(Tensor), points.as_subclass(Tensor).view(-1, 5, 2)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centres >= 0) & (centres < self.size)).all(dim=1)
        doubtful = torch.from_numpy(faces.doubtful)[inside]
        return Crop(image.as_subclass(Tensor), boxes[inside], landmarks[inside], doubtful, sample.faces is not None)

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

    def _cut(self, value: Tensor, left: int, top: int, side: int) -> Tensor:
        """The square, resized. Torchvision's crop fills with zeros only, so what lies outside is padded here."""
        if isinstance(value, tv_tensors.Image):
            height, width = value.shape[-2:]
            inner = [max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)]
            value = F.crop(value, inner[1], inner[0], inner[3] - inner[1], inner[2] - inner[0])
            value = F.pad(value, [inner[0] - left, inner[1] - top, left + side - inner[2], top + side - inner[3]], fill=self.fill)
        else:
            value = F.crop(value, top, left, side, side)
        return F.resize(value, [self.size, self.size], antialias=True)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def normalise(pixels: Tensor, config: ModelConfig) -> Tensor:
    """``(N, 3, H, W)`` uint8 RGB to the network's float input."""
    pixels = pixels.flip(1) if config.colour_order == "BGR" else pixels
    return pixels.float() - torch.tensor(config.mean, device=pixels.device).view(3, 1, 1)
