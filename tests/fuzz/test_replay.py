"""Every kind of foreign file: what fuzzing starts from is read, and what it has found stays mended."""

import gc
import warnings

import pytest

from model.errors import UserError
from tests.fuzz.seeds import TFLITE_MANIFEST
from tests.fuzz.targets import TARGETS, _artifact, _file, reproducers


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


@pytest.mark.parametrize(
    "words",
    [
        ("runtime_bench", "run", "{artifact}", "--runs", 1, "--json", "{folder}/r.json"),
        ("runtime_bench", "evaluate", "{artifact}"),
        ("runtime_bench", "detect", "{artifact}", "--out", "{folder}"),
        ("runtime_bench", "profile", "{artifact}"),
        ("runtime_bench", "compare", "{artifact}", "--json", "{folder}/r.json"),
        ("runtime_bench", "sqnr", "{artifact}", "--reference", "{artifact}", "--json", "{folder}/r.json"),
        ("export", "explain", "{artifact}"),
        ("quantize", "run", "{artifact}", "--json", "{folder}/r.json"),
    ],
    ids=lambda words: words[1],
)
def test_every_command_reads_it_in_another_process_first(words, cli, tmp_path):
    _needs_library("litert")
    (asks,) = (path for path in reproducers("tflite") if path.name.endswith("--memory"))
    artifact = _artifact(tmp_path / "a", TFLITE_MANIFEST, _file(tmp_path / "a", "model.tflite", asks.read_bytes()))
    code, _, error = cli(*(str(word).format(artifact=artifact.path, folder=tmp_path) for word in words))
    assert code == 2
    assert "LiteRT refuses it: std::bad_alloc" in [line for line in error.splitlines() if line.startswith("error: ")][-1]
