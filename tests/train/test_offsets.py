"""What the report on offsets says of networks whose offsets are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from model.config import VARIANTS
from model.deform_conv import DeformConv2d
from model.detector import Detector, build_detector
from model.errors import UserError
from train.offsets import measure_offsets, without_offsets

IMAGE = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 50


def _detector(offset: float, limit: float | None) -> Detector:
    detector = build_detector(replace(VARIANTS["acwface_dcn"], offset_limit=limit))
    for module in detector.modules():
        if isinstance(module, DeformConv2d):
            torch.nn.init.constant_(module.offset_conv.bias, offset)
    return detector


def test_known_offsets() -> None:
    for offset, limit, mean, clamped in ((0.0, None, 0.0, 0.0), (0.4, 1.0, 0.4, 0.0), (-3.0, 1.0, 1.0, 1.0), (-3.0, None, 3.0, 0.0)):
        rows = measure_offsets(_detector(offset, limit), [IMAGE])
        assert len(rows) == 23
        assert all(row.mean == pytest.approx(mean, abs=1e-5) and row.largest == pytest.approx(mean, abs=1e-5) for row in rows)
        assert all(row.clamped == clamped and row.mask_spread == 0 for row in rows)


def test_measuring_leaves_the_network_as_it_was() -> None:
    detector = build_detector(VARIANTS["acwface_dcn"], seed=0)
    with torch.no_grad():
        before = detector(IMAGE)
        measure_offsets(detector, [IMAGE])
        assert all(torch.equal(again, first) for again, first in zip(detector(IMAGE), before, strict=True))


def test_without_offsets() -> None:
    moved, still = _detector(0.7, None), _detector(0.0, None)
    still.load_state_dict({name: tensor for name, tensor in moved.state_dict().items() if "offset_conv" not in name}, strict=False)
    moved.use_training_forms(without_offsets)
    with torch.no_grad():
        for mine, theirs in zip(moved(IMAGE), still(IMAGE), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_that_leaves_nothing(cli: Callable[..., tuple[int, str, str]], tmp_path: Path, limit: int) -> None:
    code, _, stderr = cli("train", "offsets", "any.safetensors", "--data", tmp_path, "--limit", limit)
    assert code == 2
    assert f"--limit {limit}: at least 1" in stderr


def test_a_network_without_deformable_layers() -> None:
    with pytest.raises(UserError, match="no deformable layer"):
        measure_offsets(build_detector(VARIANTS["retinaface"]), [IMAGE])
