"""Step time of training, with each form of the deformable layers in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from model.config import variant_config
from model.deform_conv import Operator, mix_then_sample
from model.detector import Detector, build_detector
from train.augment import normalise
from train.deform_kernel import cpu_operator
from train.loader import Batches, DevicePhotographs
from train.loss import distillation_loss
from train.recipe import Batch, Data, Recipe
from train.widerface_data import Faces, Sample


def torchvision_operator(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    return deform_conv2d(x, offset, weight, padding=1, mask=mask)


def bench(variant: str, images: int, size: int, repeats: int, device: str = "cpu") -> list[tuple[str, float]]:
    """Median seconds of one step (student forward and backward, teacher forward, update) on random pixels.

    Forms: ``as exported`` is the network untouched, ``torchvision`` has its attention in the training form, the others have
    fast deformable layers too. One slow step is enough to see that it is slow, so the first two are timed once.
    """
    forms: list[tuple[str, Operator | None, int]] = [
        ("as exported", None, 1),
        ("torchvision", torchvision_operator, 1),
        ("mix then sample", mix_then_sample, repeats),
    ]
    if device == "cpu" and cpu_operator() is not mix_then_sample:
        forms.append(("mix then sample, C++ kernel", cpu_operator(), repeats))
    torch.manual_seed(0)
    detector = build_detector(variant_config(variant), seed=0).to(device, memory_format=torch.channels_last)
    teacher = build_detector(variant_config("retinaface"), seed=0).to(device, memory_format=torch.channels_last)
    pixels = torch.randint(256, (images, 3, size, size), dtype=torch.uint8, device=device)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-6, fused=True)
    rows = []
    for name, operator, count in forms:
        detector.use_training_forms(operator)
        times = [_step(detector, teacher, pixels, optimizer) for _ in range(count + 1)]
        rows.append((name, statistics.median(times[1:])))
    return rows


def bench_loader(variant: str, images: int, size: int, repeats: int, device: str = "cpu") -> tuple[float, float]:
    """Median seconds in which one worker prepares a batch, and those that the loop then spends on it before the step, from photographs in
    memory with 20 faces each. On a GPU the photographs are in its memory, see :class:`train.loader.DevicePhotographs`."""
    random = np.random.default_rng(0)
    corners = random.uniform(0, 600, (20, 2)).astype(np.float32)
    faces = Faces(np.concatenate([corners, corners + 60], axis=1), np.full((20, 5, 2), np.nan, np.float32), np.zeros(20, bool))
    samples = [Sample(str(index), random.integers(0, 256, (768, 1024, 3), dtype=np.uint8), faces) for index in range(16)]
    batches = Batches(Recipe(variant, Data((Batch(size, images),)), steps=1), samples, [])
    photographs = None if device == "cpu" else DevicePhotographs(batches, torch.device(device))
    made, added = [], []
    for step in range(repeats + 1):
        start = time.perf_counter()
        batch = batches[step]
        made.append(time.perf_counter() - start)
        start = _now(device != "cpu")
        if photographs is not None:
            photographs.add_pixels(batch)
        added.append(_now(device != "cpu") - start)
    return statistics.median(made[1:]), statistics.median(added[1:])


def _now(on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


def _step(detector: Detector, teacher: Detector, pixels: Tensor, optimizer: torch.optim.Optimizer) -> float:
    start = _now(pixels.is_cuda)
    image = normalise(pixels, detector.config).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        answers = teacher(image)
    terms = distillation_loss(detector(image), answers, torch.ones(answers.class_logits.shape[:2], device=image.device))
    optimizer.zero_grad()
    sum(terms.values()).backward()
    optimizer.step()
    return _now(pixels.is_cuda) - start


def print_bench(rows: Sequence[tuple[str, float]], made: float, added: float) -> None:
    fastest = min(seconds for _, seconds in rows)
    torchvision = dict(rows)["torchvision"]
    print(f"{'deformable layers':30}{'one step':>11}{'times as fast as torchvision':>31}")
    for name, seconds in rows:
        print(f"{name:30}{seconds:9.3f} s{torchvision / seconds:29.1f} x")
    print(f"{'one worker, a batch':30}{made:9.3f} s   (made ahead; the step waits {added + max(0.0, made - fastest - added):.3f} s for it)")
