"""Deformable convolution for training on a CPU: mix, then sample in a small C++ kernel, compiled when it is first wanted.

A whole training step (8 crops of 352 px, two threads of a processor with AVX2, ``python -m train bench``) takes 0.9 s, 1.1 s with
:func:`model.deform_conv.mix_then_sample` and 9.8 s with torchvision's operator. Layer by layer it is the fastest of the three.
Needs a C++ compiler with OpenMP; without one :func:`cpu_operator` answers with the standard form, whose two threads are faster than one
of the kernel's.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from model.deform_conv import TAPS, Operator, mix_then_sample

LANES = 16
"""The kernel works on so many channels at once."""
_SOURCE = Path(__file__).parent / "kernel" / "deform_sample.cpp"
# The last three let sums be reordered without -ffast-math, which would also wave NaN through comparisons.
_FLAGS = (
    *("-O3", "-march=native", "-mprefer-vector-width=512", "-shared", "-fPIC", "-fopenmp"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"),
)


@cache
def cpu_operator() -> Operator:
    """The fastest deformable convolution that this machine can train with on its CPU."""
    return mix_then_sample if _library() is None else _mixed_by_kernel


@cache
def _library() -> ctypes.CDLL | None:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        warnings.warn("no C++ compiler (c++, g++, clang++ or CXX): deformable layers train more slowly", stacklevel=2)
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "deform_sample.so"
        for flags in (_FLAGS, tuple(flag for flag in _FLAGS if not flag.startswith("-m"))):  # not every compiler knows the -m flags
            command = [compiler, *flags, "-o", str(library), str(_SOURCE)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode == 0:
                return ctypes.CDLL(str(library))  # stays mapped when the file goes
    warnings.warn(f"{compiler} cannot build {_SOURCE.name}, deformable layers train more slowly: {result.stderr[:500]}", stacklevel=2)
    return None


def _call(function: Callable[..., None], tensors: tuple[Tensor, ...], channels: int) -> None:
    """Call a kernel on dense tensors ``(images, height, width, ...)``."""
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    function(*pointers, torch.get_num_threads(), *tensors[1].shape[:3], channels)


class _MixThenSample(torch.autograd.Function):
    """``x (N, H, W, C)``, ``mixing (C, 9 * O)``, ``offset (N, H, W, 18)``, ``mask (N, H, W, 9)`` to ``(N, H, W, O)``.

    All are dense, O is a multiple of 16. A few images at a time, as many as there are threads, and mixed once more in the
    backward pass: their nine maps stay in the cache, and none has to be kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mixing: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(x, mixing, offset, mask)
        out = x.new_empty(*x.shape[:3], mixing.shape[1] // TAPS)
        run = _function("forward", x)
        chunk = torch.get_num_threads()
        for parts in zip(*(tensor.split(chunk) for tensor in (x, offset, mask, out)), strict=True):
            mixed = parts[0].flatten(0, 2) @ mixing
            _call(run, (mixed, *parts[1:]), out.shape[3])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, mixing, offset, mask = ctx.saved_tensors
        grads = grad_x, grad_mixing, grad_offset, grad_mask = (
            torch.empty_like(x),
            torch.zeros_like(mixing),
            torch.empty_like(offset),
            torch.empty_like(mask),
        )
        run = _function("backward", x)
        chunk = torch.get_num_threads()
        inputs = (x, offset, mask, grad.contiguous(), grad_x, grad_offset, grad_mask)
        for own, *inner, own_grad, offset_grad, mask_grad in zip(*(tensor.split(chunk) for tensor in inputs), strict=True):
            rows = own.flatten(0, 2)
            mixed = rows @ mixing
            mixed_grad = torch.zeros_like(mixed)
            _call(run, (mixed, *inner, mixed_grad, offset_grad, mask_grad), grad.shape[3])
            torch.mm(mixed_grad, mixing.T, out=own_grad.flatten(0, 2))
            grad_mixing.addmm_(rows.T, mixed_grad)
        return grads


def _function(direction: str, tensor: Tensor) -> Callable[..., None]:
    library = _library()
    assert library is not None
    return getattr(library, f"deform_{direction}_{'double' if tensor.dtype == torch.float64 else 'float'}")


def _mixed_by_kernel(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    outputs, channels = weight.shape[:2]
    padded = -(-outputs // LANES) * LANES
    x, offset, mask = (tensor.permute(0, 2, 3, 1).contiguous() for tensor in (x, offset, mask))
    mixing = pad(weight, (0, 0, 0, 0, 0, 0, 0, padded - outputs)).permute(1, 2, 3, 0).reshape(channels, TAPS * padded)
    return _MixThenSample.apply(x, mixing, offset, mask)[..., :outputs].permute(0, 3, 1, 2)
