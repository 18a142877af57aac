"""The loop: batches in, weights out; can be stopped at any time and goes on as if it had not been."""

from __future__ import annotations

import csv
import itertools
import math
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from model.checkpoint import Checkpoint, save_checkpoint
from model.deform_conv import mix_then_sample
from model.detector import Detector, RawOutputs
from model.errors import UserError
from model.files import atomic_file
from train.augment import normalise
from train.deform_kernel import cpu_operator
from train.loader import Batches, DevicePhotographs, TrainingBatch, fit, load_batches
from train.loss import detection_loss, distillation_loss, mean_answers, mirror_answers
from train.recipe import Optimizer, Recipe

STATE = "state.pt"
LAST = "last.safetensors"
BEST = "best.safetensors"
LOG = "log.csv"
BLEND = "blend-{:g}.safetensors"
"""Of a blend, by its share of the way from a run's first weights to its last."""
_LONGEST_STEP = 60.0
"""Seconds of one step that count as training: a process that was suspended has not trained."""

Evaluate = Callable[[Checkpoint], Mapping[str, float]]


@dataclass
class Progress:
    """Where a run stands; travels in the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    """Of training."""
    best: float = -math.inf
    """Best mean AP so far."""


class Trainer:
    """A run in a folder: ``state.pt`` to go on from, ``last.safetensors``, ``best.safetensors`` and the recipe's blends to use, ``log.csv``
    to read.

    Args:
        recipe: what to do.
        detector: where to start from; changed in place.
        teacher: the network to learn from, on the same anchors and input convention; ``None`` to learn from labels only.
        batches: what to learn on.
        folder: of the run.
        source: where the starting weights come from, in words.
        evaluate: judges a checkpoint: AP by subset. ``None`` keeps the last weights as the best.
        workers: processes that prepare batches.
        judged_by: photographs and protocol of that AP, in words, to stand beside it.
    """

    def __init__(
        self,
        recipe: Recipe,
        detector: Detector,
        teacher: Detector | None,
        batches: Batches,
        folder: Path,
        source: str,
        evaluate: Evaluate | None,
        workers: int = 1,
        device: str = "cpu",
        judged_by: str = "",
    ) -> None:
        check_teacher(detector, teacher)
        if teacher is None and (not batches.labelled or recipe.losses.detection == 0):
            raise UserError("nothing to learn from: neither labelled photographs nor a teacher; pass --data or --teacher")
        self.recipe, self.batches, self.folder, self.source, self.evaluate, self.workers = (
            recipe,
            batches,
            folder,
            source,
            evaluate,
            workers,
        )
        self.judged_by = judged_by
        self.device = torch.device(device)
        self.detector = detector.to(self.device, memory_format=torch.channels_last)
        self.teacher = None if teacher is None else teacher.to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)
        operator = cpu_operator() if self.device.type == "cpu" else mix_then_sample
        self.detector.use_training_forms(operator)
        if self.teacher is not None:
            self.teacher.use_training_forms(operator)
        self.start = {name: tensor.detach().cpu().clone() for name, tensor in self.detector.state_dict().items()}
        self.optimizer = make_optimizer(recipe.optimizer, self.detector)
        self.averaged = AveragedModel(self.detector, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True)
        self.photographs: DevicePhotographs | None = None
        if self.device.type == "cuda" and fit(batches, torch.cuda.mem_get_info(self.device)[0]):
            self.photographs = DevicePhotographs(batches, self.device)
        self.progress = Progress()
        self.rank, self.world = world()
        self.network: nn.Module = self.detector
        if self.world > 1:  # gradients are averaged over all processes
            self.network = DistributedDataParallel(self.detector, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def resume(self) -> None:
        """Go on from the folder's ``state.pt``.

        Raises:
            UserError: there is none, it is damaged, or of another recipe.
        """
        path = self.folder / STATE
        if not path.is_file():
            raise UserError(f"nothing to resume: {path} is missing; start without --resume")
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            recipe = msgspec.json.decode(state["recipe"], type=Recipe)
        except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError, msgspec.MsgspecError) as error:
            raise UserError(f"{path} is damaged ({str(error).partition(chr(10))[0]}); remove it and start again without --resume") from None
        if recipe != self.recipe:
            fields = [field for field in Recipe.__struct_fields__ if getattr(recipe, field) != getattr(self.recipe, field)]
            raise UserError(f"{path} is of another recipe ({', '.join(fields)} differ); use that recipe or another --out")
        try:
            self.detector.load_state_dict(state["detector"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"].cpu())
            self.progress = Progress(**state["progress"])
        except (RuntimeError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not hold what it should ({error}); remove it and start again without --resume") from None

    def run(self) -> Progress:
        """Train to the end of the recipe; Ctrl-C and SIGTERM save the state first."""
        if self._agreed_share() >= 1:  # resumed after its end
            return self.progress
        self.folder.mkdir(parents=True, exist_ok=True)
        _stop_on_signals()
        log = _Log(self.folder / LOG if self.rank == 0 else None, self.progress.step)
        progress, recipe = self.progress, self.recipe
        if self.progress.step == 0:
            self._judge(log)
        saved = judged = progress.seconds
        bar = tqdm(
            total=1.0,
            initial=self._share(),
            bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}",
            disable=None if self.rank == 0 else True,
        )
        loader = iter(load_batches(self.batches, _Steps(progress.step, self.rank, self.world), self.workers))
        try:
            while (share := self._agreed_share()) < 1:
                start = time.perf_counter()
                batch = next(loader)
                if self.photographs is not None:
                    batch = self.photographs.add_pixels(batch)
                waited = time.perf_counter() - start
                rate = set_rate(self.optimizer, recipe.optimizer, share)
                with _to_its_end():  # the state of half an update is no state to go on from
                    terms = self.step(batch, share)
                    seconds = time.perf_counter() - start
                    progress.step += 1
                    progress.seconds += min(seconds, _LONGEST_STEP)
                    log.step(progress, rate, seconds, waited, terms)
                bar.set_postfix(step=progress.step, rate=f"{rate:.1e}", wait=f"{waited:.2f}", **log.smooth)
                bar.update(min(self._share(), 1.0) - bar.n)
                if progress.seconds - saved > recipe.checkpoint_minutes * 60:
                    saved = progress.seconds
                    self.save()
                if progress.seconds - judged > recipe.evaluate_minutes * 60:
                    judged = progress.seconds
                    self._judge(log)
        except KeyboardInterrupt:
            self.save()
            raise
        finally:
            bar.close()
        for share in (1.0, *recipe.blend):
            self._judge(log, share)
            if share < 1 and self.rank == 0:
                self._export(BLEND.format(share), share)
        self.save()
        return progress

    def step(self, batch: TrainingBatch, share: float) -> dict[str, float]:
        """One update of the weights; the loss terms before it."""
        losses = self.recipe.losses
        images = normalise(batch.pixels.to(self.device, non_blocking=True), self.detector.config).contiguous(
            memory_format=torch.channels_last
        )
        set_mode(self.detector, self.recipe.batch_norm)
        with self._precision():
            outputs = RawOutputs(*(value.float() for value in self.network(images)))
        weights = {"class": 1.0, "box": losses.box, "landmark": losses.landmark}
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.device)
        if self.teacher is not None and losses.distillation:
            answers = self._ask_teacher(images)
            trust = self._trust(answers, batch)
            for name, value in distillation_loss(outputs, answers, trust).items():
                terms[f"distil_{name}"] = value
                total = total + losses.distillation * weights[name] * value
        if batch.targets and losses.detection and share >= losses.detection_from:
            labelled = RawOutputs(*(value[batch.labelled.to(self.device)] for value in outputs))
            targets = [target.to(self.device) for target in batch.targets]
            anchors = batch.anchors.to(self.device) if losses.overlap else None
            for name, value in detection_loss(labelled, targets, anchors, self.detector.config.variances).items():
                terms[f"detect_{name}"] = value
                total = total + losses.detection * weights[name] * value
        self.optimizer.zero_grad()
        if total.requires_grad:
            total.backward()
        norm = nn.utils.clip_grad_norm_(self.detector.parameters(), self.recipe.optimizer.clip)
        if not torch.isfinite(total) or not torch.isfinite(norm):
            raise UserError(self._write_batch(batch))
        self.optimizer.step()
        self.averaged.update_parameters(self.detector)
        return {name: value.item() for name, value in terms.items()} | {"norm": norm.item()}

    def _trust(self, answers: RawOutputs, batch: TrainingBatch) -> Tensor:
        """``(N, A)``: how far the teacher's word goes at each anchor."""
        trust = torch.ones(answers.class_logits.shape[:2], device=self.device)
        losses = self.recipe.losses
        if batch.targets and losses.detection:
            labels = torch.stack([target.labels for target in batch.targets]).to(self.device)
            by_label = torch.tensor([1.0, losses.distillation_labelled, 0.0], device=self.device)  # not taught, background, face
            trust[batch.labelled.to(self.device)] = by_label[labels + 1]
        return trust

    @torch.no_grad()
    def _ask_teacher(self, images: Tensor) -> RawOutputs:
        with self._precision():
            answers = RawOutputs(*(value.float() for value in self.teacher(images)))
            if not self.recipe.losses.mirrored_teacher:
                return answers
            mirrored = RawOutputs(*(value.float() for value in self.teacher(images.flip(3))))
        return mean_answers(answers, mirror_answers(mirrored, *images.shape[2:], self.teacher.config.strides))

    def save(self) -> None:
        """Write ``state.pt`` and ``last.safetensors``; the first process does."""
        if self.rank:
            return
        state = {
            "recipe": msgspec.json.encode(self.recipe).decode(),
            "detector": self.detector.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "progress": vars(self.progress),
        }
        try:
            with atomic_file(self.folder / STATE) as temporary:
                torch.save(state, temporary)
            self._export(LAST)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError; the earlier state is still there
            print(f"warning: step {self.progress.step} could not be saved in {self.folder} ({error}); training goes on", file=sys.stderr)

    def result(self, share: float = 1.0) -> Checkpoint:
        """The averaged weights, in ordinary form; or those so far on the way to them from where training started."""
        detector = Detector(self.detector.config).eval()
        detector.load_state_dict(self.averaged.module.state_dict())  # onto the CPU, contiguous
        words = f"{self.source}; trained for {self.progress.step} steps"
        if share == 1:
            return Checkpoint(detector, words)
        with torch.no_grad():
            for name, tensor in detector.state_dict().items():
                if tensor.is_floating_point():
                    tensor.lerp_(self.start[name], 1 - share)
        return Checkpoint(detector, f"{words}, {share:.0%} of the way")

    def _precision(self) -> torch.autocast:
        """bfloat16 where it pays: its range needs no loss scaling."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def _export(self, name: str, share: float = 1.0) -> None:
        checkpoint = self.result(share)
        save_checkpoint(checkpoint.detector, self.folder / name, checkpoint.source)

    def _judge(self, log: _Log, share: float = 1.0) -> None:
        """Evaluate the averaged weights and keep them if they are the best so far; the others wait for the first process."""
        if self.rank == 0:
            self._judge_here(log, share)
        if self.world > 1:
            torch.distributed.barrier()

    def _judge_here(self, log: _Log, share: float) -> None:
        if self.evaluate is None:
            if share == 1:
                self._export(BEST)
            return
        precision = self.evaluate(self.result(share))
        log.judged(self.progress, precision, self.judged_by)
        if (mean := sum(precision.values()) / len(precision)) > self.progress.best:
            self.progress.best = mean
            self._export(BEST, share)

    def _share(self) -> float:
        """How much of the run is over, 0 to 1."""
        if self.recipe.steps is not None:
            return self.progress.step / self.recipe.steps
        return self.progress.seconds / (self.recipe.minutes * 60)

    def _agreed_share(self) -> float:
        """The first process's, so that all end at the same step."""
        if self.world == 1:
            return self._share()
        share = torch.tensor(self._share(), device=self.device)
        torch.distributed.broadcast(share, src=0)
        return share.item()

    def _write_batch(self, batch: TrainingBatch) -> str:
        path = self.folder / f"failed-step-{self.progress.step}.pt"
        with atomic_file(path) as temporary:
            torch.save({"pixels": batch.pixels, "labelled": batch.labelled, "detector": self.detector.state_dict()}, temporary)
        return (
            f"the loss of step {self.progress.step} is not finite; batch and weights are in {path}; "
            "lower optimizer.rate or resume from the last state"
        )


class _Log:
    """``log.csv``: a row for every step and every evaluation. Rows of steps that a resumed run does again are dropped."""

    FIELDS = (
        *("step", "minutes", "rate", "step_s", "wait_s", "norm"),
        *("distil_class", "distil_box", "distil_landmark", "detect_class", "detect_box", "detect_landmark"),
        *("easy", "medium", "hard"),
    )

    def __init__(self, path: Path | None, step: int) -> None:
        self.smooth: dict[str, str] = {}
        self._means: dict[str, float] = {}
        self._file = None  # of every process but the first
        if path is None:
            return
        kept = []
        if step and path.is_file():
            with path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with atomic_file(path) as temporary, temporary.open("w", newline="") as file:  # a killed resumption keeps the earlier rows
            fresh = csv.DictWriter(file, self.FIELDS)
            fresh.writeheader()
            fresh.writerows(kept)
        self._file = path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, self.FIELDS)
        self._board = _summary_writer(path.parent, step)

    def step(self, progress: Progress, rate: float, seconds: float, waited: float, terms: Mapping[str, float]) -> None:
        values = {"rate": rate, "step_s": seconds, "wait_s": waited} | dict(terms)
        self._write(progress, values)
        for name, value in terms.items():
            self._means[name] = 0.98 * self._means.get(name, value) + 0.02 * value
        self.smooth = {name: f"{value:.3f}" for name, value in self._means.items()}

    def judged(self, progress: Progress, precision: Mapping[str, float], by: str) -> None:
        self._write(progress, precision)
        figures = "  ".join(f"{name} {value:.2f}" for name, value in precision.items())
        tqdm.write(f"step {progress.step}, {progress.seconds / 60:.1f} minutes: AP {figures}" + (f"  ({by})" if by else ""))

    def _write(self, progress: Progress, values: Mapping[str, float]) -> None:
        if self._file is None:
            return
        row = {name: f"{value:.5g}" for name, value in values.items()}
        self._writer.writerow({"step": progress.step, "minutes": f"{progress.seconds / 60:.3f}"} | row)
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name.replace("_", "/", 1), value, progress.step)


def _summary_writer(folder: Path, step: int) -> Any:
    """TensorBoard's writer where the package is installed (``pip install tensorboard``), else ``None``: the CSV has it all."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def check_teacher(detector: Detector, teacher: Detector | None) -> None:
    """A :class:`UserError` unless both networks read the same input and answer for the same anchors."""
    if teacher is None:
        return
    for field in ("strides", "min_sizes", "variances", "mean", "colour_order"):
        mine, theirs = getattr(detector.config, field), getattr(teacher.config, field)
        if mine != theirs:
            raise UserError(f"the teacher ({teacher.config.variant}) has {field} {theirs}, the student {mine}; both must agree")


def make_optimizer(recipe: Optimizer, detector: Detector) -> torch.optim.Optimizer:
    """Groups by rate factor and by whether weight decay applies."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in detector.named_parameters():
        fitting = [part for part in recipe.rates if f".{part}" in f".{name}"]
        factor = recipe.rates[max(fitting, key=len)] if fitting else 1.0
        parameter.requires_grad_(factor > 0)
        if factor > 0:
            groups.setdefault((factor, parameter.dim() > 1), []).append(parameter)
    settings = [
        {"params": parameters, "weight_decay": recipe.weight_decay if decays else 0.0, "factor": factor}
        for (factor, decays), parameters in groups.items()
    ]
    if recipe.name == "adamw":
        return torch.optim.AdamW(settings, lr=recipe.rate, betas=(recipe.momentum, 0.999), fused=True)
    return torch.optim.SGD(settings, lr=recipe.rate, momentum=recipe.momentum, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, recipe: Optimizer, share: float) -> float:
    """Set every group's rate for this share of the run; the rate of factor 1."""
    if share < recipe.warm_up:
        level = share / recipe.warm_up
    elif recipe.schedule == "cosine":
        level = 0.5 * (1 + math.cos(math.pi * (share - recipe.warm_up) / (1 - recipe.warm_up)))
    else:
        level = 0.1 ** sum(share >= milestone for milestone in recipe.milestones)
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate * level * group["factor"]
    return recipe.rate * level


def set_mode(detector: Detector, batch_norm: str) -> None:
    detector.train()
    if batch_norm == "frozen":
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _stop_on_signals() -> None:
    """Both ways to ask for an end raise KeyboardInterrupt, also in the background, where shells have SIGINT ignored."""
    if threading.current_thread() is threading.main_thread():  # Python's rule
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)


@contextmanager
def _to_its_end() -> Iterator[None]:
    """Signals that ask for an end wait until the block has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


class _Steps:
    """Endless numbers of batches, for a loader to draw: of step ``start`` and all after it; each process has its own."""

    def __init__(self, start: int, rank: int, world: int) -> None:
        self.first, self.stride = start * world + rank, world

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.first, self.stride)


def world() -> tuple[int, int]:
    """Number of this process and of all, as torchrun started them."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
