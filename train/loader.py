"""Batches: a pure function of seed and step, made ahead of the loop in a process of their own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.anchors import make_anchors
from model.errors import UserError
from train.augment import Augment, Crop, Frame, border, mosaic, render
from train.loss import Targets, match
from train.recipe import MOSAICS, Recipe
from train.widerface_data import Sample, StreamedSample

_ATTEMPTS = 100


@dataclass(frozen=True)
class TrainingBatch:
    frames: list[tuple[Frame, ...]]
    """Where the pixels come from, for each image."""
    pixels: Tensor | None
    """``(N, 3, S, S)`` uint8 RGB; ``None`` where :class:`DevicePhotographs` will add them."""
    labelled: Tensor
    """``(N,)`` bool: which images have targets; their order is that of :attr:`targets`."""
    targets: list[Targets]
    anchors: Tensor
    """``(A, 4)`` of an image, see :func:`model.anchors.make_anchors`."""


class Batches(Dataset):
    """``batches[step]`` is the batch of that step, the same whenever and wherever it is asked for.

    Args:
        recipe: what to draw, and how.
        labelled, unlabelled: what to draw from. A photograph's number is its place in one and then the other.
    """

    def __init__(self, recipe: Recipe, labelled: Sequence[Sample | StreamedSample], unlabelled: Sequence[Sample | StreamedSample]) -> None:
        self.recipe, self.labelled, self.unlabelled = recipe, labelled, unlabelled
        self.unreadable = 0
        """Photographs that were drawn and could not be read, in this process."""
        self.with_pixels = True
        """Whether batches come with their pixels."""
        data = recipe.data
        self.augments = [Augment(batch.size, data.zoom, data.whole, data.colour) for batch in data.batches]
        self.tiles = [{row: Augment(batch.size // row, data.zoom, 1.0, data.colour) for row in MOSAICS} for batch in data.batches]
        self.weights = torch.tensor([batch.weight for batch in data.batches])

    def __getitem__(self, step: int) -> TrainingBatch:
        recipe = self.recipe
        drawn: dict[int, Sample] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            kind = int(torch.multinomial(self.weights, 1))
            crops = [self._crop(kind, drawn) for _ in range(recipe.data.batches[kind].images)]
        size = recipe.data.batches[kind].size
        config = recipe.config
        anchors = torch.tensor(make_anchors(size, size, config.strides, config.min_sizes))
        levels = None
        if recipe.losses.assignment == "atss":
            levels = [(-(-size // stride)) ** 2 for stride in config.strides]
        targets = []
        for crop in crops:
            if crop.labelled:
                sides = crop.boxes[:, 2:] - crop.boxes[:, :2]
                ignored = crop.doubtful | (sides.amin(dim=1) < recipe.losses.smallest_face)
                if recipe.losses.largest_face is not None:
                    ignored |= sides.amax(dim=1) > recipe.losses.largest_face
                targets.append(match(crop.boxes, crop.landmarks, anchors, config.variances, ignored, levels))
        batch = TrainingBatch([crop.frames for crop in crops], None, torch.tensor([crop.labelled for crop in crops]), targets, anchors)
        return _with_pixels(batch, lambda number: as_planes(drawn[number]), border(config)) if self.with_pixels else batch

    def _crop(self, kind: int, drawn: dict[int, Sample]) -> Crop:
        if float(torch.rand(())) >= self.recipe.data.mosaic:
            return self.augments[kind](*self._draw(drawn))
        row = MOSAICS[int(torch.randint(len(MOSAICS), ()))]
        return mosaic([self.tiles[kind][row](*self._draw(drawn)) for _ in range(row * row)])

    def _draw(self, drawn: dict[int, Sample]) -> tuple[Sample, int]:
        """A photograph and its number; one that cannot be read is counted, and another drawn instead."""
        for _ in range(_ATTEMPTS):
            try:
                sample, number = self._pick()
                drawn[number] = sample.read()
                return drawn[number], number
            except UserError as error:
                self.unreadable += 1
                print(f"warning: {self.unreadable} photographs skipped so far, now: {error}", file=sys.stderr)
        raise UserError(f"{_ATTEMPTS} photographs in a row cannot be read; check the data")

    def _pick(self) -> tuple[Sample | StreamedSample, int]:
        unlabelled = bool(self.unlabelled) and (not self.labelled or float(torch.rand(())) < self.recipe.data.people)
        samples, first = (self.unlabelled, len(self.labelled)) if unlabelled else (self.labelled, 0)
        place = int(torch.randint(len(samples), ()))
        return samples[place], first + place


class DevicePhotographs:
    """All photographs of a set in a device's memory: workers then send what to take from them instead of pixels.

    Args:
        batches: whose they are; makes batches without pixels from now on.
        device: a GPU, whose memory they :func:`fit`.
    """

    def __init__(self, batches: Batches, device: torch.device) -> None:
        self._pixels = [as_planes(sample).to(device) for sample in (*batches.labelled, *batches.unlabelled)]
        self._border = border(batches.recipe.config)
        batches.with_pixels = False

    def add_pixels(self, batch: TrainingBatch) -> TrainingBatch:
        """The batch with its pixels, on the device."""
        return _with_pixels(batch, self._pixels.__getitem__, self._border)


def fit(batches: Batches, free: int) -> bool:
    """Whether the photographs are decoded and take at most half of so many bytes; the network needs the rest."""
    samples = [*batches.labelled, *batches.unlabelled]
    return all(isinstance(sample, Sample) for sample in samples) and sum(sample.pixels.nbytes for sample in samples) <= free // 2


def as_planes(sample: Sample) -> Tensor:
    """Its pixels, ``(3, H, W)`` uint8 RGB."""
    return torch.tensor(sample.pixels).permute(2, 0, 1)


def _with_pixels(batch: TrainingBatch, photographs: Callable[[int], Tensor], fill: Sequence[int]) -> TrainingBatch:
    return replace(batch, pixels=torch.stack([render(frames, photographs, fill) for frames in batch.frames]))


def load_batches(batches: Batches, steps: Iterable[int], workers: int) -> DataLoader:
    """Batches of these steps in order. Workers share the photographs' memory (fork); 0 makes batches in the calling process."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_start_worker,
    )


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)  # the step needs the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the loop is to end first
