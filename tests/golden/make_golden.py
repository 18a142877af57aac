"""Writes the vectors that other languages replay: what ``model`` and ``runtime_bench`` answer to small inputs. README.md describes them.

``python -m tests.golden.make_golden`` or ``make golden``; ``--check`` writes nothing and tells whether the files are up to date.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import torch
from torchvision.ops import deform_conv2d, nms

from model.anchors import make_anchors
from model.artifact import (
    AnchorSpec,
    File,
    InputTensor,
    Library,
    Manifest,
    OutputTensor,
    Parity,
    RuntimeSpec,
    open_artifact,
)
from model.errors import UserError
from model.postprocess import Thresholds, postprocess
from model.preprocess import InputSpec, prepare
from runtime_bench.record import Latency, Result

FOLDER = Path(__file__).parent
STRIDES, MIN_SIZES, VARIANCES = (8, 16, 32), ((16, 32), (64, 128), (256, 512)), (0.1, 0.2)


def number(value: float | np.floating) -> float | int | str:
    """The shortest text that gives the same value back; what JSON has no number for is a string."""
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    value = float(str(np.float32(value))) if isinstance(value, np.float32) else float(value)
    return int(value) if value == int(value) and abs(value) < 1e9 else value


def rows(array: np.ndarray) -> list:
    return [rows(row) if row.ndim else number(row) for row in array]


def pixels(height: int, width: int, seed: int) -> np.ndarray:
    """``(height, width, 3)`` uint8 RGB: upper bytes of a linear congruential generator (Numerical Recipes), easy in any language."""
    state, values = seed, []
    for _ in range(height * width * 3):
        state = (1664525 * state + 1013904223) % 2**32
        values.append(state >> 24)
    return np.asarray(values, np.uint8).reshape(height, width, 3)


# --- preprocessing ---


def letterbox() -> dict:
    sizes = [(640, 640), (480, 640), (320, 320), (33, 57)]
    photographs = [(480, 640), (640, 480), (1080, 1920), (1920, 1080), (4032, 3024)]
    photographs += [(5, 10), (10, 5), (7, 10), (1, 1000), (1000, 1), (1, 1), (333, 777), (641, 639)]
    cases = []
    for size in [*sizes, (5, 5), (64, 64)]:
        for height, width in photographs:
            prepared = prepare(np.zeros((height, width, 3), np.uint8), InputSpec(), size)
            resized = [round(prepared.scale_y * height), round(prepared.scale_x * width)]
            cases.append({"photograph": [height, width], "input": size, "resized": resized, "scale": [prepared.scale_x, prepared.scale_y]})
    return {"cases": cases}


def preprocess() -> dict:
    # Down, up, one axis only, no resizing at all; both orders of colours and both layouts; tall ones, whose columns Pillow resizes first.
    settings = [
        ((23, 37), (16, 16), InputSpec(layout="NHWC")),
        ((23, 37), (16, 16), InputSpec(mean=(123.0, 117.0, 104.0), scale=0.0078125, colour_order="RGB", layout="NCHW")),
        ((5, 4), (12, 11), InputSpec(layout="NHWC")),
        ((12, 8), (12, 12), InputSpec(layout="NHWC")),
        ((40, 9), (8, 9), InputSpec(layout="NHWC")),
        ((61, 7), (10, 30), InputSpec(layout="NCHW")),
        ((2, 50), (9, 13), InputSpec(layout="NHWC")),
        ((41, 20), (9, 9), InputSpec(layout="NHWC")),
        ((50, 20), (10, 10), InputSpec(layout="NHWC")),
    ]
    cases = []
    for seed, ((height, width), size, spec) in enumerate(settings, 1):
        prepared = prepare(pixels(height, width, seed), spec, size)
        tensor = prepared.tensor[0] if spec.layout == "NCHW" else prepared.tensor[0].transpose(1, 2, 0)
        tensor = rows(tensor.reshape(-1))
        cases.append({"photograph": [height, width], "seed": seed, "input": size, "spec": msgspec.to_builtins(spec), "tensor": tensor})
    return {"cases": cases}


# --- anchors ---


def anchors() -> dict:
    cases = []
    for height, width in ((33, 40), (640, 640), (481, 643), (320, 256), (1, 1)):
        made = make_anchors(height, width, STRIDES, MIN_SIZES)
        picked = np.unique(np.linspace(0, len(made) - 1, 40).astype(int))
        sums = [number(value) for value in made.sum(axis=0, dtype=np.float64)]
        cases.append(
            {"input": [height, width], "count": len(made), "sums": sums, "indices": picked.tolist(), "anchors": rows(made[picked])}
        )
    odd = make_anchors(30, 50, (10, 25), ((7,), (20, 30, 45)))
    spec = {"strides": [10, 25], "min_sizes": [[7], [20, 30, 45]]}
    cases.append(
        {
            "input": [30, 50],
            **spec,
            "count": len(odd),
            "sums": [number(value) for value in odd.sum(axis=0, dtype=np.float64)],
            "indices": list(range(len(odd))),
            "anchors": rows(odd),
        }
    )
    return {"strides": STRIDES, "min_sizes": MIN_SIZES, "cases": cases}


# --- non-maximum suppression ---


def suppression() -> dict:
    generator = np.random.default_rng(0)
    corner, extent = generator.uniform(0, 100, (200, 2)).round(2), generator.uniform(2, 40, (200, 2)).round(2)
    crowd = np.concatenate([corner, corner + extent], axis=1)
    nan, inf = float("nan"), float("inf")
    cases = {
        "none": ([], [], 0.4),
        "one": ([[1, 2, 3, 4]], [0.5], 0.4),
        "threshold itself is kept": ([[0, 0, 10, 10], [0, 0, 10, 5]], [0.9, 0.8], 0.5),
        "just above the threshold": ([[0, 0, 10, 10], [0, 0, 10, 5]], [0.9, 0.8], 0.4999),
        "the threshold is a double, IoU a float": ([[0, 0, 5, 1], [0, 0, 2, 1]], [0.9, 0.8], 0.4),
        "a chain: what is suppressed suppresses nothing": ([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], [0.9, 0.8, 0.7], 0.4),
        "equal scores: the earlier one first": ([[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10]], [0.5, 0.5, 0.5], 0.4),
        "empty and inverted boxes": ([[5, 5, 5, 5], [5, 5, 5, 5], [10, 10, 0, 0], [0, 0, 10, 10]], [0.9, 0.8, 0.7, 0.6], 0.4),
        "boxes that are not numbers": ([[nan, 0, 10, 10], [0, 0, 10, 10], [0, nan, 10, 10], [0, 0, inf, inf]], [0.9, 0.8, 0.7, 0.6], 0.4),
        "a crowd": (crowd, generator.uniform(0, 1, 200).round(3), 0.4),
        "a crowd, one box a place": (crowd, generator.uniform(0, 1, 200).round(1), 0.0),
    }
    written = []
    for name, (boxes, scores, threshold) in cases.items():
        boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
        kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold).tolist()
        written.append({"name": name, "boxes": rows(boxes), "scores": rows(scores), "nms_iou": threshold, "kept": kept})
    return {"cases": written}


# --- postprocessing as a whole ---


class Scene:
    """Outputs of a network that has found some faces: zero wherever nothing was put."""

    def __init__(self, height: int, width: int, seed: int = 0, strides: tuple[int, ...] = STRIDES, landmarks: int = 10) -> None:
        self.size = (height, width)
        self.strides = strides
        self.landmarks = landmarks
        """Deltas of them: 0 of a network that has none."""
        self.anchors = make_anchors(height, width, strides, MIN_SIZES)
        self.outputs = {}
        self.generator = np.random.default_rng(seed)

    def put(self, anchor: int, score: float, deltas: Iterable[float] = (0, 0, 0, 0), landmarks: Iterable[float] | None = None) -> Scene:
        landmarks = self.generator.uniform(-3, 3, self.landmarks).round(2) if landmarks is None else landmarks
        self.outputs[anchor] = np.asarray([score, *deltas, *landmarks], np.float32)
        return self

    def face(self, box: tuple[float, float, float, float], score: float, anchors: int = 1) -> Scene:
        """A face at left, top, right, bottom in pixels of the input, seen by the anchors nearest to it; their boxes differ a little."""
        left, top, right, bottom = box
        centre, extent = np.asarray([(left + right) / 2, (top + bottom) / 2]), np.asarray([right - left, bottom - top])
        distance = np.abs(self.anchors[:, :2] - centre).sum(axis=1) + np.abs(np.log(self.anchors[:, 2:] / extent)).sum(axis=1) * 20
        for place, anchor in enumerate(np.argsort(distance, kind="stable")[:anchors]):
            x, y, width, height = self.anchors[anchor].astype(float)
            jitter = self.generator.normal(0, 0.02 * extent.mean(), 2)
            deltas = [*((centre + jitter - (x, y)) / (width, height) / VARIANCES[0]), *(np.log(extent / (width, height)) / VARIANCES[1])]
            self.put(int(anchor), round(score * (1 - 0.07 * place), 3), np.round(deltas, 3))
        return self


def scenes() -> dict[str, tuple[Scene, Thresholds, tuple[float, float]]]:
    nan, inf, usual, plain = float("nan"), float("inf"), Thresholds(), (1.0, 1.0)
    crowd = Scene(160, 256, seed=4)
    for row in range(4):
        for column in range(7):
            crowd.face((8 + 35 * column, 6 + 38 * row, 26 + 35 * column, 30 + 38 * row), 0.5 + 0.017 * (7 * row + column), anchors=3)
    wild = Scene(64, 96, seed=5)
    wild.put(3, 0.9, (0, 0, 100, 60)).put(40, 0.8, (500, -500, -100, 49.9)).put(80, 0.7, (0, 0, 50, 50.1))
    broken = Scene(64, 96, seed=6).face((10, 10, 34, 36), 0.9, anchors=2)
    broken.put(0, nan).put(1, inf).put(2, -inf).put(5, 0.7, (nan, 0, 0, 0)).put(7, 0.65, (0, 0, nan, 0))
    broken.put(9, 0.6, landmarks=[nan] * 10).put(20, 0.62, (inf, 0, 0, 0)).put(21, 0.61, (0, 0, -inf, inf))
    borderline = Scene(64, 96, seed=7).put(10, 0.5).put(30, 0.50000006).put(50, 0.02).put(60, 0.0200001)
    overlapping = Scene(128, 128, seed=3)
    overlapping.face((20, 20, 60, 70), 0.95, anchors=6).face((38, 24, 80, 72), 0.9, anchors=4).face((30, 60, 62, 100), 0.7, anchors=3)
    boxes_only = [Scene(64, 96, seed, strides=(4, 8, 16), landmarks=0) for seed in (10, 11)]  # as the MobileNetV2's
    boxes_only[1].face((10, 8, 30, 32), 0.95, anchors=7).face((20, 12, 42, 34), 0.9, anchors=5).face((60, 20, 90, 58), 0.7, anchors=3)
    boxes_only[1].put(5, float("nan")).put(6, 0.6, (nan, 0, 0, 0)).put(900, 0.55, (-20, 30, 60, 4))
    pair = Scene(96, 128, seed=8)
    pair.put(12, 0.8, (0, 0, 0, 0)).put(13, 0.8, (0, 0, 0, 0)).put(14, 0.8, (0, 0, 0, 0)).put(60, 0.8, (1, 1, 0, 0))
    return {
        "no face": (Scene(64, 96), usual, plain),
        "scores, but none high enough": (Scene(64, 96).face((10, 10, 40, 40), 0.4, anchors=4), usual, plain),
        "one face": (Scene(96, 64, seed=1).face((12, 20, 40, 58), 0.97), usual, plain),
        "one face, seen by many anchors, scaled": (Scene(96, 64, seed=2).face((12, 20, 40, 58), 0.97, anchors=9), usual, (0.333, 0.335)),
        "overlapping faces": (overlapping, usual, (0.5, 0.5)),
        "overlapping faces, nothing suppressed": (overlapping, Thresholds(nms_iou=1.0), plain),
        "many faces": (crowd, usual, (0.2, 0.2)),
        "many faces, few kept": (crowd, Thresholds(keep=5), plain),
        "many faces, few candidates": (crowd, Thresholds(top_k=20), plain),
        "many faces at the evaluation's threshold": (crowd, Thresholds(score=0.02), plain),
        "boxes off the image": (Scene(64, 96, seed=9).face((-30, -20, 14, 22), 0.9, 2).face((80, 50, 150, 130), 0.8, 2), usual, (2.0, 2.0)),
        "boxes without bound": (wild, usual, plain),
        "not a number": (broken, usual, plain),
        "scores at the threshold": (borderline, usual, plain),
        "scores at a threshold that a float has not": (borderline, Thresholds(score=0.02), plain),
        "equal scores": (pair, usual, plain),
        "boxes only: no face": (boxes_only[0], usual, plain),
        "boxes only: overlapping faces, off the image, not a number": (boxes_only[1], usual, (0.5, 0.25)),
        "boxes only: few kept": (boxes_only[1], Thresholds(score=0.02, keep=2), plain),
    }


def detection() -> dict:
    cases = []
    for name, (scene, thresholds, scale) in scenes().items():
        scores = np.zeros(len(scene.anchors), np.float32)
        deltas, landmarks = np.zeros((len(scores), 4), np.float32), np.zeros((len(scores), scene.landmarks), np.float32)
        for anchor, output in scene.outputs.items():
            scores[anchor], deltas[anchor], landmarks[anchor] = output[0], output[1:5], output[5:]
        with np.errstate(invalid="ignore", over="ignore"):
            found = postprocess(scores, deltas, landmarks, scene.anchors, VARIANCES, thresholds, scale)
        faces = np.concatenate([found.boxes, found.landmarks.reshape(len(found), scene.landmarks)], axis=1)
        cases.append(
            {
                "name": name,
                **({} if scene.landmarks else {"landmarks": False, "strides": scene.strides}),
                "input": scene.size,
                "scale": scale,
                "thresholds": msgspec.to_builtins(thresholds),
                "outputs": [[anchor, *rows(output)] for anchor, output in sorted(scene.outputs.items())],
                "faces": [[number(score), *rows(face)] for score, face in zip(found.scores, faces, strict=True)],
            }
        )
    return {"strides": STRIDES, "min_sizes": MIN_SIZES, "variances": VARIANCES, "cases": cases}


# --- detector.json ---

MANIFEST = Manifest(
    variant="acwface_dcn",
    dcn="custom",
    precision="fp32",
    format="tflite",
    weights="written for tests",
    model=File("model.tflite", hashlib.sha256(b"a model").hexdigest(), 7),
    reference=File("reference.safetensors", hashlib.sha256(b"a reference").hexdigest(), 11),
    input=InputTensor(layout="NHWC", shape=(1, 480, 640, 3)),
    outputs=(
        OutputTensor("scores", "scores", (1, 12600)),
        OutputTensor("box_deltas", "box_deltas", (1, 12600, 4)),
        OutputTensor("landmark_deltas", "landmark_deltas", (1, 12600, 10)),
    ),
    anchors=AnchorSpec(STRIDES, MIN_SIZES, VARIANCES),
    thresholds=Thresholds(),
    runtime=RuntimeSpec("litert", "2.1.2", Library("acwface_litert", "1.1.1")),
    parity=Parity(1.5e-06, 0.00035, 0.0005, 12600, 3),
)


def manifest() -> dict:
    text = msgspec.json.encode(MANIFEST).decode()

    def changed(before: str, after: str) -> str:
        if before not in text:
            raise AssertionError(f"{before} is not in the manifest any more")
        return text.replace(before, after, 1)

    boxes, landmarks = ("," + msgspec.json.encode(output).decode() for output in MANIFEST.outputs[1:])
    texts = {
        "as written": text,
        "indented": msgspec.json.format(text, indent=2),
        "no library": changed('{"name":"acwface_litert","version":"1.1.1"}', "null"),
        "no parity": changed(text[text.index('"parity":') : text.index(',"schema"')], '"parity":null'),
        "a field with a default left out": changed(',"nms_iou":0.4', ""),
        "a field twice": changed('"variant":"acwface_dcn"', '"variant":"first","variant":"acwface_dcn"'),
        "any size": changed('"shape":[1,480,640,3]', '"shape":[1,null,null,3]'),
        "whole numbers for real ones": changed('"mean":[104.0,117.0,123.0]', '"mean":[104,117,123]'),
        "escapes": changed("written for tests", '\\u00e9\\ud83d\\ude00\\n\\/\\\\\\"'),
        "an exponent": changed('"score":0.5', '"score":5E-1'),
        "a whole number as a real one": changed('"top_k":5000', '"top_k":5000.0'),
        "a whole number with an exponent": changed('"top_k":5000', '"top_k":5e3'),
        "no landmarks": text.replace(landmarks, ""),
        "no boxes": text.replace(boxes, ""),
        "landmarks twice and no boxes": text.replace(boxes, landmarks),
        "a picture for input": changed('"dtype":"float32"', '"dtype":"image"'),
        "a picture for output": text[: text.index('"outputs"')] + text[text.index('"outputs"') :].replace("float32", "image"),
        "minus nothing": changed('"mean":[104.0', '"mean":[-0'),
        "not JSON": text[:-1],
        "more after the end": text + "{}",
        "a comma too many": changed('"shape":[1,480,640,3]', '"shape":[1,480,640,3,]'),
        "a leading zero": changed('"top_k":5000', '"top_k":05000'),
        "a bare word": changed('"score":0.5', '"score":NaN'),
        "a control character in a string": changed("written for tests", "a\nb"),
        "half a surrogate pair": changed("written for tests", "\\ud83d"),
        "a field missing": changed('"variant":"acwface_dcn",', ""),
        "a field too many": changed('"variant"', '"colour":1,"variant"'),
        "a field too many inside": changed('"version":"1.1.1"', '"version":"1.1.1","url":""'),
        "a string for a number": changed('"top_k":5000', '"top_k":"5000"'),
        "a number for a string": changed('"variant":"acwface_dcn"', '"variant":1'),
        "a fraction for a whole number": changed('"top_k":5000', '"top_k":5000.5'),
        "null for a number": changed('"top_k":5000', '"top_k":null'),
        "three axes": changed('"shape":[1,480,640,3]', '"shape":[1,480,640]'),
        "an axis of nothing": changed('"shape":[1,480,640,3]', '"shape":[1,0,640,3]'),
        "a layout that is not known": changed('"layout":"NHWC"', '"layout":"NWHC"'),
        "a type that is not known": changed('"dtype":"float32"', '"dtype":"uint8"'),
        "a meaning that is not known": changed('"meaning":"scores"', '"meaning":"mask"'),
        "two means": changed('"mean":[104.0,117.0,123.0]', '"mean":[104.0,117.0]'),
        "a newer schema": changed('"schema":1', '"schema":2'),
        "an older schema": changed('"schema":1', '"schema":0'),
        "no schema": changed(',"schema":1', ""),
        "a path for a file": changed('"name":"model.tflite"', '"name":"../model.tflite"'),
        "a list": "[]",
        "nothing": "",
    }
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST.model.name).write_bytes(b"a model")
        (Path(folder) / MANIFEST.reference.name).write_bytes(b"a reference")
        for name, candidate in texts.items():
            (Path(folder) / "detector.json").write_text(candidate, encoding="utf-8")
            try:
                open_artifact(Path(folder))
                accepted = True
            except UserError:
                accepted = False
            cases.append({"name": name, "text": candidate, "accepted": accepted})
    return {"manifest": msgspec.to_builtins(MANIFEST), "cases": cases}


# --- the deformable kernel ---


def deform() -> dict:
    """DeformSample of ``export/kernel/README.md``, as torchvision's operator computes it with tap matrices that only select."""
    generator = np.random.default_rng(0)
    # (height, width), channels, offset limit, negative slope. Offsets reach beyond the image; 256 pixels are one thread's.
    settings = [((3, 4), 2, 0.0, 1.0), ((5, 3), 3, 1.0, 0.1), ((1, 1), 1, 0.0, 0.0), ((2, 7), 16, 0.5, 0.1), ((13, 21), 1, 0.0, 0.1)]
    cases = []
    for (height, width), channels, limit, slope in settings:
        predicted = generator.normal(0, 1.5, (height, width, 27)).round(1).astype(np.float32)
        mixed = generator.normal(0, 1, (height, width, 9 * channels)).round(1).astype(np.float32)
        bias = generator.normal(0, 0.5, channels).round(2).astype(np.float32)
        planes = torch.from_numpy(predicted).permute(2, 0, 1)[None]
        offset, mask = planes[:, :18], 2 * planes[:, 18:].sigmoid()
        weight = torch.zeros(channels, 9, channels, 9)  # output, tap that was mixed, channel of it, tap that samples
        for tap in range(9):
            weight[:, tap, :, tap] = torch.eye(channels)
        offset = offset.clamp(-limit, limit) if limit else offset
        found = deform_conv2d(
            torch.from_numpy(mixed).permute(2, 0, 1)[None],
            offset,
            weight.reshape(channels, 9 * channels, 3, 3),
            torch.from_numpy(bias),
            padding=1,
            mask=mask,
        )
        out = torch.where(found > 0, found, slope * found)[0].permute(1, 2, 0).numpy()
        arrays = {"predicted": predicted, "mixed": mixed, "bias": bias, "out": out}
        case = {"size": [height, width], "channels": channels, "offset_limit": limit, "negative_slope": slope}
        cases.append(case | {name: rows(array.reshape(-1)) for name, array in arrays.items()})
    return {"cases": cases}


# --- the benchmark's record ---


def record() -> dict:
    times = [12.5, 11.0, 11.25, 30.0, 11.5, 11.75, 12.0, 11.125, 14.0, 12.25, 11.875]
    median, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    result = Result(
        artifact="acwface_dcn-custom-fp32-480x640-tflite",
        variant=MANIFEST.variant,
        dcn=MANIFEST.dcn,
        precision=MANIFEST.precision,
        format=MANIFEST.format,
        weights=MANIFEST.weights,
        checkpoint=MANIFEST.reference.sha256,
        runtime=MANIFEST.runtime.name,
        runtime_version="2.3.0",
        device='phone "one"',
        machine="Some SoC",
        threads=4,
        size_bytes=MANIFEST.model.size_bytes,
        load_ms=81.5,
        latency_ms=Latency(median, p90, p99, min(times), len(times), 10),
        latency_input=(480, 640),
        peak_memory_bytes=52428800,
        protocol="letterbox-480x640",
        dataset="none",
    )
    record = msgspec.to_builtins(result)
    record["latency_ms"] = {field: record["latency_ms"][field] for field in ("median", "p90", "p99", "min", "runs", "warmup")}
    # An app writes no more than this; what else a record may hold has a default, which the test reads it with.
    fields = Result.__struct_fields__[: Result.__struct_fields__.index("drop") + 1]
    return {"times_ms": times, "records": [{field: record[field] for field in fields}]}


VECTORS = {
    "letterbox.json": letterbox,
    "preprocess.json": preprocess,
    "anchors.json": anchors,
    "nms.json": suppression,
    "detection.json": detection,
    "manifest.json": manifest,
    "deform.json": deform,
    "record.json": record,
}


def encode(vectors: dict) -> bytes:
    """JSON with a line for each case, so that a difference can be read."""
    lines = []
    for key, value in vectors.items():
        if key == "cases":
            cases = ",\n".join(msgspec.json.encode(case).decode() for case in value)
            lines.append(f'"cases":[\n{cases}\n]')
        else:
            lines.append(f'"{key}":{msgspec.json.encode(value).decode()}')
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def same(one: object, other: object) -> bool:
    """Equal, but for the last bits of real numbers: NumPy's exponential function differs by one between processors."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-6 * max(1.0, abs(other))
    return one == other


def stale() -> dict[str, bytes]:
    """What would be written anew."""
    texts = {name: encode(make()) for name, make in VECTORS.items()}
    files = {name: FOLDER / name for name in VECTORS}
    return {
        name: text
        for name, text in texts.items()
        if not files[name].is_file() or not same(msgspec.json.decode(files[name].read_bytes()), msgspec.json.decode(text))
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file is not up to date")
    check = parser.parse_args().check
    texts = stale()
    for name, text in () if check else texts.items():
        (FOLDER / name).write_bytes(text)
    print("up to date" if not texts else f"{'not up to date' if check else 'written'}: {' '.join(texts)}")
    return int(check and bool(texts))


if __name__ == "__main__":
    sys.exit(main())
