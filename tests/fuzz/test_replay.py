"""Every kind of foreign file: what fuzzing starts from is read, and what it has found stays mended."""

import gc
import warnings

import pytest

from model.errors import UserError
from tests.fuzz.targets import TARGETS, reproducers


def outcome(name, data, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            TARGETS[name].read(data, folder)
        except UserError as error:
            said = str(error)
        else:
            said = None
        gc.collect()
    assert said is None or said.isprintable()
    return said


def _needs_library(runtime):
    from export.kernel import library_path

    try:
        library_path(runtime)
    except UserError as error:
        pytest.skip(str(error))


WHOLE = ["manifest", "manifest-run", "mlpackage", "mlpackage-manifest", "onnx", "onnx-peer", "safetensors", "tflite", "tflite-delegate"]
WHOLE += ["label.txt", "bbx_gt.txt", "image-list", "ground-truth", "pseudo-labels", "records", "train-recipe", "quantize-recipe"]


@pytest.mark.parametrize("name", WHOLE)
def test_what_fuzzing_starts_from_is_whole(name, tmp_path):
    if name in ("manifest-run", "onnx") or name.startswith("tflite"):
        _needs_library("litert" if name.startswith("tflite") else "ort")
    for seed in TARGETS[name].seeds():
        if name in ("image-list", "label.txt") and len(seed) == 2048:  # the beginning of a real file, cut anywhere
            continue
        assert outcome(name, seed, tmp_path) is None


@pytest.mark.parametrize("path", [path for name in TARGETS for path in reproducers(name)], ids=lambda path: path.name)
def test_what_fuzzing_found_stays_mended(path, tmp_path):
    outcome(path.name.partition("--")[0], path.read_bytes(), tmp_path)


def test_a_file_that_asks_for_all_of_the_memory_gets_none_of_it(tmp_path):
    _needs_library("litert")
    (asks,) = (path for path in reproducers("tflite") if path.name.endswith("--memory"))
    assert "LiteRT refuses it: std::bad_alloc" in outcome("tflite", asks.read_bytes(), tmp_path)
