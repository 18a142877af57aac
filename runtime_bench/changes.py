"""What has changed between two runs of the benchmark, beyond noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from model.artifact import Artifact
from model.errors import UserError
from runtime_bench.record import Latency, Result
from runtime_bench.widerface import SUBSETS

AP_RESOLUTION = 0.005
"""Percentage points: what figures are printed with. Runtimes round differently below it."""


@dataclass(frozen=True)
class Change:
    """One figure of one artifact."""

    artifact: str
    figure: str
    unit: str
    before: float | None
    """``None`` where the figure cannot be compared: :attr:`why` says why not."""
    after: float | None
    beyond_noise: bool = False
    beyond_limit: bool = False
    why: str = ""


def check_checkpoints(before: Sequence[Result], artifacts: Sequence[Artifact]) -> None:
    """Raise a :class:`UserError` when an artifact was made from another checkpoint than its namesake of an earlier run."""
    checkpoints = {result.artifact: result.checkpoint for result in before}
    for artifact in artifacts:
        digest = artifact.manifest.reference.sha256
        if (old := checkpoints.get(artifact.name, digest)) != digest:
            raise UserError(
                f"{artifact.path} was made from checkpoint {digest[:12]}, in the earlier records from {old[:12]}; "
                "compare files of one checkpoint"
            )


def find_changes(before: Sequence[Result], after: Sequence[Result], max_slower: float, max_loss: float) -> list[Change]:
    """Compare latency and AP of the artifacts that both runs have, device by device.

    A median has changed beyond noise if neither lies within the other's spread (the 10th to the 90th percentile of all runs), also after
    correction for how fast the machine was in each run; and AP if neither drop lies within the other's interval.

    Args:
        before, after: records of two runs.
        max_slower: limit for medians, percent.
        max_loss: limit for AP, percentage points.
    """
    earlier = {(result.artifact, result.device): result for result in before}
    changes: list[Change] = []
    for result in after:
        old = earlier.get((result.artifact, result.device))
        if old is None:
            changes.append(Change(result.artifact, "all", "", None, None, why="not in the earlier records"))
            continue
        changes += _latency(old, result, max_slower)
        changes += _accuracy(old, result, max_loss)
    return changes


def _latency(old: Result, new: Result, limit: float) -> Iterator[Change]:
    if old.latency_ms is None or new.latency_ms is None:
        return
    conditions = [(result.machine, result.threads, result.latency_input, result.latency_ms.mlperf) for result in (old, new)]
    if conditions[0] != conditions[1]:
        why = "measured on another machine, with other threads, another input or by other rules"
        yield Change(new.artifact, "median", "ms", None, None, why=why)
        return
    before, after = old.latency_ms, new.latency_ms
    corrections = {1.0}
    if before.yardstick_ms and after.yardstick_ms:
        corrections.add(before.yardstick_ms / after.yardstick_ms)
    beyond = all(
        not _within(correction * after.median, _spread(before, 1)) and not _within(before.median, _spread(after, correction))
        for correction in corrections
    )
    slower = 100 * (after.median / before.median - 1)
    yield Change(new.artifact, "median", "ms", before.median, after.median, beyond, beyond and slower > limit)


def _spread(times: Latency, factor: float) -> tuple[float, float]:
    return factor * (times.min if times.p10 is None else times.p10), factor * times.p90


def _accuracy(old: Result, new: Result, limit: float) -> Iterator[Change]:
    if old.ap is None or new.ap is None:
        return
    if (old.dataset_digest, old.protocol) != (new.dataset_digest, new.protocol):
        yield Change(new.artifact, "AP", "", None, None, why="evaluated on other photographs or in another scaling")
        return
    for subset in SUBSETS:
        before, after = getattr(old.ap, subset), getattr(new.ap, subset)
        drops = [getattr(result.drop, subset, None) for result in (old, new)]
        if before is None or after is None or None in drops:
            continue
        # The reference is the same: what AP loses, the drop gains.
        intervals = [_drop_interval(result, subset) for result in (old, new)]
        beyond = abs(after - before) > AP_RESOLUTION and not _within(drops[1], intervals[0]) and not _within(drops[0], intervals[1])
        yield Change(new.artifact, f"AP {subset}, {new.protocol}", "", before, after, beyond, beyond and before - after > limit)


def _drop_interval(result: Result, subset: str) -> tuple[float, float]:
    """The interval, or the drop alone where there were too few photographs for one."""
    interval = getattr(result.drop_interval, subset) if result.drop_interval else None
    drop = getattr(result.drop, subset)
    return interval or (drop, drop)


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]
