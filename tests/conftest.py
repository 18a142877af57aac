"""What tests of several rooms share. Real weights and photographs live beside the project, and tests that need them say so when skipped."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.checkpoint import Checkpoint, load_checkpoint
from model.cli import run_command

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def public_weights() -> Path:
    path = DATA / "weights" / "retinaface_mobilenet025_final.pth"
    if not path.is_file():
        pytest.skip("the public RetinaFace weights are not beside the project (../shared/data)")
    return path


@pytest.fixture(scope="session")
def public_retinaface(public_weights) -> Checkpoint:
    return load_checkpoint(public_weights, "retinaface")


@pytest.fixture(scope="session")
def wider_root() -> Path:
    path = DATA / "widerface"
    if not path.is_dir():
        pytest.skip("WIDER FACE is not beside the project (../shared/data)")
    return path


@pytest.fixture
def cli(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run ``python -m ROOM ARGUMENTS`` in this process: exit code, stdout, stderr."""

    def run(room: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [room, *map(str, arguments)])
        try:
            code = run_command(importlib.import_module(f"{room}.__main__").main)
        except SystemExit as exit_:  # argparse
            code = exit_.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def error_line(stderr: str) -> str:
    """The one line that a failed command leaves (progress lines apart), without its prefix."""
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    return lines[0].removeprefix("error: ")


@pytest.fixture(autouse=True)
def _fixed_random_state():
    torch.manual_seed(0)
