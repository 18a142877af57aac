"""Fetching WIDER FACE, with small stand-ins for the publishers."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from model.errors import UserError
from train import fetch
from train.fetch import fetch_widerface


class Publisher:
    """Does what torchvision's WIDERFace and download_url do, on two images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, images: int = 1) -> None:
        self.images, self.fetched, self.broken = images, [], False
        monkeypatch.setattr(fetch, "WIDERFace", self.widerface)
        monkeypatch.setattr(fetch, "download_url", self.url)
        monkeypatch.setattr(fetch, "_COUNTS", {"train": 1, "val": 1})

    def widerface(self, root: str, download: bool) -> None:
        assert download
        self.fetched.append("images")
        if self.broken:
            raise RuntimeError("connection lost")
        for split in ("train", "val"):
            folder = Path(root) / "widerface" / f"WIDER_{split}" / "images" / "0--Parade"
            folder.mkdir(parents=True)
            for index in range(self.images):
                Image.new("RGB", (40, 30)).save(folder / f"{index}.jpg")
        labels = Path(root) / "widerface" / "wider_face_split"
        labels.mkdir()
        (labels / "wider_face_train_bbx_gt.txt").write_text("0--Parade/0.jpg\n1\n5 5 10 10 0 0 0 0 0 0\n")

    def url(self, url: str, root: str, name: str) -> None:
        self.fetched.append("tools")

        def cell(value: object) -> np.ndarray:
            array = np.empty((1, 1), object)
            array[0, 0] = value
            return array

        shared = {
            "event_list": cell("0--Parade"),
            "file_list": cell(cell("0")),
            "face_bbx_list": cell(cell(np.asarray([[5.0, 5, 10, 10]]))),
        }
        with zipfile.ZipFile(Path(root) / name, "w") as archive:
            for subset in ("easy", "medium", "hard"):
                path = Path(root) / f"wider_{subset}_val.mat"
                scipy.io.savemat(path, shared | {"gt_list": cell(cell(np.asarray([[1]])))})
                archive.write(path, f"eval_tools/ground_truth/{path.name}")


def test_fetched_checked_and_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    publisher = Publisher(monkeypatch)
    fetch_widerface(tmp_path / "wider")
    assert "1 training and 1 validation images" in capsys.readouterr().out
    fetch_widerface(tmp_path / "wider")
    assert publisher.fetched == ["images", "tools"]


def test_a_broken_fetch_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(monkeypatch)
    publisher.broken = True
    with pytest.raises(UserError, match="connection lost"):
        fetch_widerface(tmp_path)
    publisher.broken = False
    (tmp_path / "widerface").mkdir()
    (tmp_path / "widerface" / "eval_tools.zip").write_bytes(b"PK half")
    fetch_widerface(tmp_path)
    assert (tmp_path / "val/ground_truth/wider_hard_val.mat").is_file()


def test_missing_images_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Publisher(monkeypatch, images=0)
    with pytest.raises(UserError, match="fewer than 1"):
        fetch_widerface(tmp_path)
