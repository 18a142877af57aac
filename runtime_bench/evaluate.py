"""Run a detector over an evaluation set."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from tqdm import tqdm

from model.errors import UserError
from model.postprocess import Detections
from model.preprocess import load_image
from runtime_bench.detect import FaceDetector
from runtime_bench.record import ImageTimes, SubsetAP
from runtime_bench.widerface import EVALUATION, Counts, WiderFace, average_precision, count_levels

if TYPE_CHECKING:
    from runtime_bench.peers import PeerDetector
    from runtime_bench.views import ViewDetector

    Evaluated = FaceDetector | PeerDetector | ViewDetector


Item, Made = TypeVar("Item"), TypeVar("Made")

_AHEAD = 4
"""Photographs. One would do if all took the same time."""


@dataclass(frozen=True)
class Evaluation:
    """What a detector found."""

    detections: dict[str, Detections]
    """By image name; an image that could not be read, or run, is not in it."""
    failed: tuple[str, ...]
    """Names of those."""
    image_ms: ImageTimes
    ap: SubsetAP
    network_s: float = 0.0
    """In the network, of all images."""
    scoring_s: float = 0.0
    """For average precision."""
    counts: Counts | None = None
    """By :func:`runtime_bench.widerface.count_levels`."""


def protocol(size: tuple[int, int] | None) -> str:
    """Name of a way to look at photographs, once at one scale; figures of different ways are not comparable. Others, of several looks, are
    :data:`runtime_bench.views.PROTOCOLS`."""
    return f"letterbox-{size[0]}x{size[1]}" if size else "original"


def _ahead(function: Callable[[Item], Made], items: Iterable[tuple[str, Item]]) -> Iterator[tuple[str, Future[Made]]]:
    """``function`` of every item, in their order, with the item's name; made in a thread while the caller is busy with those before."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[str, Future[Made]]] = deque()
        try:
            for name, item in items:
                waiting.append((name, pool.submit(function, item)))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft()
            yield from waiting
        except BaseException:  # the evaluation has been given up
            pool.shutdown(cancel_futures=True)
            raise


def _answers(detector: Evaluated, dataset: WiderFace) -> Iterator[tuple[str, Future]]:
    """What the network says to each photograph: while it runs, the next ones are read and prepared, and the last ones postprocessed."""
    paths = ((name, dataset.images / name) for name in dataset.faces)
    prepared = _ahead(lambda path: detector.prepare(load_image(path)), paths)
    return _ahead(lambda photograph: detector.run(photograph.result()), prepared)


def evaluate(detector: Evaluated, dataset: WiderFace, label: str) -> Evaluation:
    """Detect faces in every image of ``dataset`` and score them. One that fails is reported on stderr and left out.

    Args:
        detector: at its own input size.
        dataset: images with ground truth.
        label: for the progress bar.

    Raises:
        UserError: all have failed.
    """
    detections, times, failed, why, network_ms = {}, [], [], "", 0.0
    for name, answer in tqdm(_answers(detector, dataset), total=len(dataset), desc=label, unit="image", disable=None, leave=False):
        try:
            detections[name], stage = detector.finish(answer.result(), EVALUATION)
            times.append((stage.preprocess, stage.postprocess))
            network_ms += stage.network
        except UserError as error:
            failed.append(name)
            why = str(error)
            tqdm.write(f"left out: {error}", file=sys.stderr)
    if not detections:
        raise UserError(f"{label}: none of the {len(dataset)} images under {dataset.images} could be evaluated; last: {why}")
    start = time.perf_counter()
    truth, found = [dataset.faces[name] for name in detections], list(detections.values())
    counts = count_levels(truth, found)
    ap = average_precision(truth, found, counts)
    scoring_s = time.perf_counter() - start
    return Evaluation(
        detections,
        tuple(failed),
        ImageTimes(*(float(value) for value in np.median(times, axis=0))),
        SubsetAP(**{subset: None if np.isnan(value) else value for subset, value in ap.items()}),
        network_ms / 1e3,
        scoring_s,
        counts,
    )
