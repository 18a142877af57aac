"""The readers of foreign bytes, each as a function that a fuzzer feeds.

Whatever it is fed, a reader works or raises a :class:`model.errors.UserError`. Anything else is a bug: another exception, a crash, a hang,
much memory, a program that is started, a file outside the folder that it was given.
"""

from __future__ import annotations

import functools
import io
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from PIL import Image

from model.artifact import MANIFEST, REFERENCE, Artifact, Manifest, open_artifact
from model.checkpoint import load_checkpoint
from model.files import sha256, size_bytes
from model.postprocess import Thresholds
from model.preprocess import load_image, prepare
from quantize.recipe import read_recipe
from runtime_bench.changes import find_changes
from runtime_bench.detect import artifact_detector
from runtime_bench.html_report import write_report
from runtime_bench.latency import require_readable
from runtime_bench.record import read_results
from runtime_bench.report import results_table
from runtime_bench.samples import sample_set
from runtime_bench.widerface import _read_list, read_ground_truth
from tests.fuzz import seeds, trees
from train.pseudo import read_pseudo_labels
from train.recipe import load_recipe
from train.widerface_data import _clip, load_labelled, read_labels

PICTURE = np.full((6, 5, 3), 128, np.uint8)


class Target(NamedTuple):
    """One kind of file."""

    read: Callable[[bytes, Path], object]
    """Given a file's bytes and a folder that is empty but for what earlier calls have left there."""
    seeds: Callable[[], Iterable[bytes]]
    form: Callable[[], trees.Form] | None = None
    """What mutations keep well-formed."""


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _artifact(folder: Path, manifest: Manifest | dict, model: Path) -> Artifact:
    """With digests that are right, whatever else is wrong: whoever builds a hostile artifact can compute them."""
    fields = msgspec.to_builtins(manifest) if isinstance(manifest, Manifest) else manifest
    reference = _file(folder, REFERENCE, b"reference")
    for role, path in (("model", model), ("reference", reference)):
        if isinstance(fields.get(role), dict):
            fields[role] = {"name": path.name, "sha256": sha256(path), "size_bytes": size_bytes(path)}
    _file(folder, MANIFEST, json.dumps(fields).encode())
    return open_artifact(folder)


def _detect(artifact: Artifact) -> None:
    artifact_detector(artifact, threads=1).detect(PICTURE, Thresholds(score=0.0))


def _read_manifest(data: bytes, folder: Path) -> None:
    _file(folder, "model.onnx", b"model")
    _file(folder, REFERENCE, b"reference")
    _file(folder, MANIFEST, data)
    open_artifact(folder)


def _run_manifest(data: bytes, folder: Path) -> None:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(fields, dict):
        model = folder / "model.onnx"
        if not model.is_file():
            model.write_bytes(seeds.onnx_model())
        _detect(_artifact(folder, fields, model))


def _run_onnx(data: bytes, folder: Path) -> None:
    _detect(_artifact(folder, seeds.ONNX_MANIFEST, _file(folder, "model.onnx", data)))


def _run_peer(data: bytes, folder: Path) -> None:
    from runtime_bench.peers import open_peer

    path = _file(folder, "peer.onnx", data)
    open_peer(f"peer={path}").detector((32, 32), threads=1).detect(PICTURE, Thresholds(score=0.0))


def _run_tflite(data: bytes, folder: Path) -> None:
    """As commands do: in another process first, because LiteRT trusts its files."""
    artifact = _artifact(folder, seeds.TFLITE_MANIFEST, _file(folder, "model.tflite", data))
    require_readable(artifact)
    _detect(artifact)


def _run_delegate(data: bytes, folder: Path) -> None:
    """``data`` says what the nodes of ours are like, in a model that is whole otherwise."""
    try:
        model = seeds.with_nodes(json.loads(data))
    except Exception:  # no node can be made of it
        return
    _detect(_artifact(folder, seeds.TFLITE_MANIFEST, _file(folder, "model.tflite", model)))


def _package(folder: Path) -> Path:
    """The seed, with what the last call has changed; made once a process."""
    package = folder / "model.mlpackage"
    for name, content in _package_files().items():
        if not (package / name).is_file():
            _file(package, name, content)
    return package


@functools.cache
def _package_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        package = seeds.coreml_package(Path(folder))
        return {path.relative_to(package).as_posix(): path.read_bytes() for path in package.rglob("*") if path.is_file()}


def _run_mlmodel(data: bytes, folder: Path) -> None:
    package = _package(folder)
    next(package.rglob("model.mlmodel")).write_bytes(data)
    _detect(_artifact(folder, seeds.COREML_MANIFEST, package))


def _run_mlpackage_manifest(data: bytes, folder: Path) -> None:
    package = _package(folder)
    (package / "Manifest.json").write_bytes(data)
    _detect(_artifact(folder, seeds.COREML_MANIFEST, package))


def _read_safetensors(data: bytes, folder: Path) -> None:
    """``data`` is the header; weights are zeros."""
    _, weights = seeds.safetensors_header()
    load_checkpoint(_file(folder, "a.safetensors", len(data).to_bytes(8, "little") + data + bytes(weights)))


def _read_raw_safetensors(data: bytes, folder: Path) -> None:
    load_checkpoint(_file(folder, "a.safetensors", data))


def _read_pth(data: bytes, folder: Path) -> None:
    load_checkpoint(_file(folder, "a.pth", data))


def _read_pth_pickle(data: bytes, folder: Path) -> None:
    """``data`` is the pickle in an archive that is whole otherwise."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for number in range(400):
            archive.writestr(f"archive/data/{number}", bytes(8))
        archive.writestr("archive/version", "3\n")
    load_checkpoint(_file(folder, "a.pth", file.getvalue()))


def _read_retinaface(data: bytes, folder: Path) -> None:
    _file(folder, "train/label.txt", data)
    _use_labels(folder)


def _read_official(data: bytes, folder: Path) -> None:
    _file(folder, "train/wider_face_train_bbx_gt.txt", data)
    _use_labels(folder)


def _use_labels(folder: Path) -> None:
    photograph = folder / "train" / "images" / "0--Parade" / "a.jpg"
    if not photograph.is_file():
        photograph.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PICTURE).save(photograph)
    _, labels = read_labels(folder)
    for name, faces in labels.items():
        clipped = _clip(faces, 64, 48)
        assert np.isfinite(clipped.boxes).all(), "a box that is no number"
        assert not (set(Path(name).parts) & {"..", "/"}), "a name that leads out of the folder"
    load_labelled(folder, 64)


def _read_image_list(data: bytes, folder: Path) -> None:
    _read_list(_file(folder, "list.txt", data), {"0--Parade/a.jpg": None, "0--Parade/b.jpg": None})


def _read_ground_truth(data: bytes, folder: Path) -> None:
    for subset in ("easy", "medium", "hard"):
        _file(folder, f"wider_{subset}_val.mat", data)
    for name in read_ground_truth(folder):
        assert not (set(Path(name).parts) & {"..", "/"}), "a name that leads out of the folder"


def _read_pseudo(data: bytes, folder: Path) -> None:
    improve = read_pseudo_labels(_file(folder, "pseudo.jsonl", data))
    improve("0--Parade/a.jpg", None)
    _, labels = _labels(folder)
    for name, faces in labels.items():
        improve(name, faces)


def _labels(folder: Path) -> tuple[Path, dict]:
    _file(folder, "train/label.txt", seeds.RETINAFACE)
    (folder / "train" / "images").mkdir(parents=True, exist_ok=True)
    return read_labels(folder)


def _read_image(data: bytes, folder: Path) -> None:
    image = load_image(_file(folder, "a.jpg", data))
    if image.shape[0] * image.shape[1] < 1 << 20:
        prepare(image, seeds.ONNX_MANIFEST.input, (64, 64))


def _read_results(data: bytes, folder: Path) -> None:
    results = read_results(_file(folder, "records.json", data))
    if results:
        results_table(results)
        find_changes(results, results, 10, 0.5)
        write_report(results, sample_set().images, folder / "report")


def _read_train_recipe(data: bytes, folder: Path) -> None:
    _ = load_recipe(_file(folder, "recipe.toml", data)).config


def _read_quantize_recipe(data: bytes, folder: Path) -> None:
    read_recipe(_file(folder, "recipe.json", data))


def _onnx_form() -> trees.Form:
    import onnx

    return trees.message(onnx.ModelProto)


def _mlmodel_form() -> trees.Form:
    from coremltools.proto import Model_pb2

    return trees.message(Model_pb2.Model)


def _tflite_form() -> trees.Form:
    from ai_edge_litert import schema_py_generated as schema

    from export.tflite_model import pack_model

    return trees.Form(lambda data: schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0)), pack_model)


def _whole_manifest() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        _artifact(Path(folder), seeds.ONNX_MANIFEST, _file(Path(folder), "model.onnx", b"model"))
        return [(Path(folder) / MANIFEST).read_bytes()]


def _package_seed(name: str) -> list[bytes]:
    return [content for path, content in _package_files().items() if path.endswith(name)]


def _recipes() -> list[bytes]:
    return [path.read_bytes() for path in sorted((Path(__file__).parents[2] / "train" / "recipes").glob("*.toml"))]


def _json() -> trees.Form:
    return trees.JSON


TARGETS = {
    "manifest": Target(_read_manifest, _whole_manifest, _json),
    "manifest-run": Target(_run_manifest, lambda: [msgspec.json.encode(seeds.ONNX_MANIFEST)], _json),
    "onnx": Target(_run_onnx, lambda: [seeds.onnx_model()], _onnx_form),
    "onnx-peer": Target(_run_peer, lambda: [seeds.peer_model()], _onnx_form),
    "tflite": Target(_run_tflite, lambda: [seeds.tflite_model()], _tflite_form),
    "tflite-delegate": Target(_run_delegate, lambda: [json.dumps(seeds.nodes()).encode()], _json),
    "mlpackage": Target(_run_mlmodel, lambda: _package_seed("model.mlmodel"), _mlmodel_form),
    "mlpackage-manifest": Target(_run_mlpackage_manifest, lambda: _package_seed("Manifest.json"), _json),
    "safetensors": Target(_read_safetensors, lambda: [seeds.safetensors_header()[0]], _json),
    "safetensors-raw": Target(_read_raw_safetensors, lambda: [bytes(8), b"\x02" + bytes(7) + b"{}"]),
    "pth": Target(_read_pth, seeds.pth_files),
    "pth-pickle": Target(_read_pth_pickle, seeds.pth_pickles),
    "label.txt": Target(_read_retinaface, lambda: [seeds.RETINAFACE, *seeds.real_beginning("widerface", "train", "label.txt")]),
    "bbx_gt.txt": Target(_read_official, lambda: [seeds.OFFICIAL]),
    "image-list": Target(_read_image_list, lambda: [seeds.IMAGE_LIST, *seeds.real_beginning("widerface", "val", "dev_list.txt")]),
    "ground-truth": Target(_read_ground_truth, lambda: [seeds.ground_truth(False), seeds.ground_truth(True)]),
    "pseudo-labels": Target(_read_pseudo, lambda: [seeds.PSEUDO]),
    "image": Target(_read_image, seeds.images),
    "records": Target(_read_results, lambda: [msgspec.json.encode(seeds.results())], _json),
    "train-recipe": Target(_read_train_recipe, _recipes),
    "quantize-recipe": Target(_read_quantize_recipe, lambda: [seeds.QUANTIZE_RECIPE], _json),
}


def reproducers(name: str) -> list[Path]:
    """Inputs that a reader has once failed on."""
    return sorted((Path(__file__).parent / "reproducers").glob(f"{name}--*"))


class Escape(Exception):
    """A reader did what no reader may."""


class Guard:
    """Watches, by Python's audit events, for programs that are started (but Python itself) and files that are written outside a folder.

    Events of our own set-up must not be seen: it looks while :attr:`on`. What only the system can name, in its temporary folder, may be.
    """

    FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pickle.find_class")

    def __init__(self, folder: Path) -> None:
        self.on = False
        self.seen: str | None = None
        self._folder = str(folder.resolve())
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event in self.FORBIDDEN or (event == "subprocess.Popen" and arguments[0] != sys.executable):
            self._stop(f"{event}{arguments!r:.200}")
        if event == "open" and isinstance(arguments[0], (str, bytes)) and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            path = arguments[0] if isinstance(arguments[0], str) else arguments[0].decode(errors="replace")
            if path not in ("/dev/null", tempfile.gettempdir()) and not str(Path(path).absolute()).startswith(self._folder):
                self._stop(f"writes {path}")

    def _stop(self, what: str) -> None:
        self.seen = what
        raise Escape(what)
