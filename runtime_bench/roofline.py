"""What the machine under a measurement is, and how fast it can be at best: the roof that achieved rates are compared with."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from runtime_bench.record import Peak

_MATRIX = 512
"""All three matrices stay in a core's own cache; at 1024 they don't, and the rate falls behind what convolutions reach."""
_COPIED_BYTES = 1 << 27
"""Beyond the last-level cache of any machine that this is likely to run on."""
_PRODUCTS, _COPIES = 50, 8
"""Tries; the fastest counts."""


def measure_peak(threads: int) -> Peak:
    """Measure both rates; under a second."""
    matrix = np.random.default_rng(0).standard_normal((_MATRIX, _MATRIX), np.float32)
    session = _matrix_product(matrix, threads)
    product_s = _fastest(lambda: session.run(None, {"a": matrix}), _PRODUCTS)
    source, target = (np.ones(_COPIED_BYTES // 4, np.float32) for _ in range(2))
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:  # numpy copies without the interpreter's lock
        copy_s = _fastest(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)), _COPIES)
    return Peak(gflops=2 * _MATRIX**3 / product_s / 1e9, copy_gbs=2 * _COPIED_BYTES / copy_s / 1e9)


def _matrix_product(matrix: np.ndarray, threads: int) -> onnxruntime.InferenceSession:
    a, product = (helper.make_tensor_value_info(name, TensorProto.FLOAT, matrix.shape) for name in ("a", "product"))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["product"])], "peak", [a], [product], [numpy_helper.from_array(matrix, "b")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _fastest(work: Callable[[], object], tries: int) -> float:
    """Seconds."""
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


_INSTRUCTIONS = {"avx512_vnni": "AVX-512 VNNI", "avx512f": "AVX-512", "avx_vnni": "AVX-VNNI", "avx2": "AVX2", "asimddp": "dot products"}
"""What decides how fast integers are, best first, by its name in ``/proc/cpuinfo``."""


def processor() -> str:
    """The processor's name and, on Linux, the best of its vector instructions: virtual machines give many the same name."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    fields = {}
    if cpuinfo.exists():
        fields = {key.strip(): value.split() for key, _, value in (line.partition(":") for line in cpuinfo.read_text().splitlines())}
    known = {*fields.get("flags", ()), *fields.get("Features", ())}
    best = [words for flag, words in _INSTRUCTIONS.items() if flag in known][:1]
    return ", ".join([" ".join(fields.get("model name", [name])), *best])
