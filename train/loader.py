"""Batches: a pure function of seed and step, made ahead of the loop in a process of their own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.anchors import make_anchors
from model.errors import UserError
from train.augment import Augment
from train.loss import Targets, match
from train.recipe import Recipe
from train.widerface_data import Sample, StreamedSample

_ATTEMPTS = 100


@dataclass(frozen=True)
class TrainingBatch:
    pixels: Tensor
    """``(N, 3, S, S)`` uint8 RGB."""
    labelled: Tensor
    """``(N,)`` bool: which images have targets; their order is that of :attr:`targets`."""
    targets: list[Targets]
    anchors: Tensor
    """``(A, 4)`` of an image, see :func:`model.anchors.make_anchors`."""


class Batches(Dataset):
    """``batches[step]`` is the batch of that step, the same whenever and wherever it is asked for."""

    def __init__(self, recipe: Recipe, labelled: Sequence[Sample | StreamedSample], unlabelled: Sequence[Sample | StreamedSample]) -> None:
        self.recipe, self.labelled, self.unlabelled = recipe, labelled, unlabelled
        self.unreadable = 0
        """Photographs that were drawn and could not be read, in this process."""
        data = recipe.data
        self.augments = [Augment(recipe.config, batch.size, data.zoom, data.whole, data.colour) for batch in data.batches]
        self.weights = torch.tensor([batch.weight for batch in data.batches])

    def __getitem__(self, step: int) -> TrainingBatch:
        recipe = self.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed * 1_000_003 + step)
            kind = int(torch.multinomial(self.weights, 1))
            crops = [self.augments[kind](self._draw()) for _ in range(recipe.data.batches[kind].images)]
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
        return TrainingBatch(
            torch.stack([crop.pixels for crop in crops]), torch.tensor([crop.labelled for crop in crops]), targets, anchors
        )

    def _draw(self) -> Sample:
        """A photograph; one that cannot be read is counted, and another drawn instead."""
        for _ in range(_ATTEMPTS):
            try:
                return self._pick().read()
            except UserError as error:
                self.unreadable += 1
                print(f"warning: {self.unreadable} photographs skipped so far, now: {error}", file=sys.stderr)
        raise UserError(f"{_ATTEMPTS} photographs in a row cannot be read; check the data")

    def _pick(self) -> Sample | StreamedSample:
        unlabelled = bool(self.unlabelled) and (not self.labelled or float(torch.rand(())) < self.recipe.data.people)
        samples = self.unlabelled if unlabelled else self.labelled
        return samples[int(torch.randint(len(samples), ()))]


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
