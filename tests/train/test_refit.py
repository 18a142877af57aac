"""Class heads fitted again: what is fitted, how it is judged, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.errors import UserError
from runtime_bench.detect import torch_detector
from runtime_bench.evaluate import evaluate
from runtime_bench.widerface import SUBSETS, GroundTruth, WiderFace
from tests.conftest import error_line
from train.refit import Candidates, choose, fit, judge, keep_level, look, read_heads, write_heads
from train.widerface_data import hold_out


def _photograph(random: np.random.Generator) -> Candidates:
    """A face, found well, and three false boxes elsewhere. The second feature tells them apart; the first, which ranks them, is noise."""
    right = np.asarray([True, False, False, False])
    boxes = torch.tensor([[index * 100.0, 0, index * 100 + 40, 40] for index in range(4)])
    features = torch.from_numpy(np.stack([random.normal(size=4), right * 2.0 - 1 + random.normal(size=4) / 4, np.ones(4)], axis=1)).float()
    truth = GroundTruth(boxes[:1].numpy(), {subset: np.ones(1, bool) for subset in SUBSETS})
    hit = torch.from_numpy(right)
    return Candidates(truth, boxes, features, torch.zeros(4, dtype=torch.int64), hit, torch.ones(4, 3, dtype=torch.bool), torch.ones(4))


def _photographs(seed: int) -> list[Candidates]:
    random = np.random.default_rng(seed)
    return [_photograph(random) for _ in range(40)]


OLD = torch.tensor([[1.0, 0.0, 0.0], [3.0, 2.0, 1.0]])
"""Of two kinds of anchors; the second shows nothing."""


def test_what_tells_faces_apart_is_learnt() -> None:
    new, others = fit(_photographs(0), OLD, stiffness=0.01), _photographs(1)
    assert judge(others, OLD)["hard"] < 70
    assert judge(others, new)["hard"] > 99
    assert new[0, 1] > 1
    torch.testing.assert_close(new[1, :-1], OLD[1, :-1])
    stiff = fit(_photographs(0), OLD, stiffness=1e6)
    torch.testing.assert_close(stiff[:, :-1], OLD[:, :-1], rtol=0, atol=1e-3)


def test_as_many_boxes_reach_the_default_threshold() -> None:
    photographs = _photographs(0)
    levelled = keep_level(photographs, OLD, 3 * OLD - 2)
    before, after = (torch.cat([(photograph.features @ weights[0]) for photograph in photographs]) for weights in (OLD, levelled))
    assert (before > 0).sum() == (after > 0).sum()
    torch.testing.assert_close(levelled[:, :-1], 3 * OLD[:, :-1] - 2)
    none = OLD - torch.tensor([0.0, 0.0, 1e6])
    assert torch.isfinite(keep_level(photographs, none, OLD)).all()


def test_boxes_on_faces_outside_a_subset_teach_nothing() -> None:
    """The same false boxes, but no subset counts them: their feature is not held against them."""
    photographs = [replace(photograph, counts=photograph.hit[:, None].expand(4, 3)) for photograph in _photographs(0)]
    new = fit(photographs, OLD, stiffness=1.0)
    assert abs(new[0, 1]) < fit(_photographs(0), OLD, stiffness=1.0)[0, 1] / 2


def test_the_best_way_loses_little_in_every_subset() -> None:
    precisions = [{"easy": 80.0, "hard": 60.0}, {"easy": 82.0, "hard": 59.8}, {"easy": 90.0, "hard": 59.0}]
    assert choose(precisions, 0.5) == 1
    assert choose(precisions, 1.0) == 2
    assert choose(precisions, 0.0) == 0
    assert choose([precision | {"medium": float("nan")} for precision in precisions], 0.5) == 1, "no face of a subset"


@pytest.mark.parametrize("variant", ["retinaface", "acwface_dcn"])
def test_heads_are_read_and_written(variant: str) -> None:
    detector = build_detector(VARIANTS[variant], seed=0)
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 50
    old, change = read_heads(detector), torch.randn(6, 65, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, features = detector(image), detector.features(image)
        write_heads(detector, old + change)
        after = detector(image)
    torch.testing.assert_close(read_heads(detector), old + change, rtol=1e-4, atol=1e-4)
    assert torch.equal(before.box_deltas, after.box_deltas)
    moved = (after.class_logits - before.class_logits)[0].diff(dim=1)[:, 0]
    # An anchor at a time, in the order that the model documents: levels, cells row by row, the anchors of a cell.
    expected = [
        torch.cat([cell, torch.ones(1)]) @ change[2 * level + anchor]
        for level, feature in enumerate(features)
        for cell in feature[0].permute(1, 2, 0).reshape(-1, 64)
        for anchor in range(2)
    ]
    torch.testing.assert_close(moved, torch.stack(expected), rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def photographs(wider_root: Path) -> WiderFace:
    whole = hold_out(wider_root, 8)
    return WiderFace(whole.images, dict(list(whole.faces.items())[:3]), "three")


def test_judged_as_the_evaluation_does(photographs: WiderFace, public_retinaface) -> None:
    detector = public_retinaface.detector
    expected = msgspec.structs.asdict(evaluate(torch_detector(public_retinaface, None), photographs, "").ap)
    found = judge(look(detector, photographs), read_heads(detector))
    assert found == pytest.approx({subset: expected[subset] for subset in found}, abs=0.05)


def test_photographs_that_cannot_be_read(photographs: WiderFace, public_retinaface, capsys: pytest.CaptureFixture[str]) -> None:
    missing = {"0/none.jpg": next(iter(photographs.faces.values()))}
    some = WiderFace(photographs.images, missing | dict(list(photographs.faces.items())[:1]), "some")
    assert len(look(public_retinaface.detector, some)) == 1
    assert "left out" in capsys.readouterr().err
    with pytest.raises(UserError, match="shows no face"):
        look(public_retinaface.detector, WiderFace(photographs.images, missing, "none"))


def test_command(cli: Callable[..., tuple[int, str, str]], tmp_path: Path, wider_root: Path, public_weights: Path) -> None:
    out = tmp_path / "refit.safetensors"
    code, stdout, _ = cli("train", "refit", public_weights, "--data", wider_root, "--out", out, "--limit", 6, "--may-lose", 100)
    assert code == 0
    assert stdout.count("easy") == 8
    assert stdout.count("chosen") == 1
    before, after = load_checkpoint(public_weights), load_checkpoint(out)
    changed = {name for name, tensor in after.detector.state_dict().items() if not torch.equal(tensor, before.detector.state_dict()[name])}
    assert changed == {name for name in before.detector.state_dict() if name.startswith("class_heads")}
    assert "class heads fitted again on 6 photographs" in after.source


def test_bad_input(cli: Callable[..., tuple[int, str, str]], tmp_path: Path, wider_root: Path) -> None:
    checkpoint = tmp_path / "mine.safetensors"
    save_checkpoint(build_detector(VARIANTS["retinaface"]), checkpoint, "test")
    common = ("train", "refit", checkpoint, "--data", wider_root)
    for words, arguments in (
        ("ends in .safetensors", ("--out", tmp_path / "out.pth")),
        ("--held-out 1", ("--out", tmp_path / "out.safetensors", "--held-out", 1)),
        ("--limit", ("--out", tmp_path / "out.safetensors", "--limit", 0)),
        ("--may-lose -1.0", ("--out", tmp_path / "out.safetensors", "--may-lose", -1)),
        ("File exists", ("--out", checkpoint / "out.safetensors")),  # before a thousand photographs are looked at
    ):
        code, _, stderr = cli(*common, *arguments)
        assert code == 2
        assert words in error_line(stderr)
    assert list(tmp_path.iterdir()) == [checkpoint]
