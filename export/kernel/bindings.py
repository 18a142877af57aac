"""The bare kernel from Python: every implementation that this processor can run, on NumPy arrays, for tests and measurements."""

from __future__ import annotations

import ctypes
import math
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_float, c_int32, c_size_t, c_ssize_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TAPS = 9


class _Layer(Structure):  # AcwfaceDeform of deform.h, and so on
    _fields_ = [
        *(("height", c_int32), ("width", c_int32), ("channels", c_int32)),
        *(("predicted", c_void_p), ("predicted_pixel", c_ssize_t), ("predicted_channel", c_ssize_t)),
        *(("bias", c_void_p), ("out", c_void_p), ("out_pixel", c_ssize_t), ("out_channel", c_ssize_t)),
        *(("offset_limit", c_float), ("negative_slope", c_float)),
    ]


class _Sample(Structure):
    _fields_ = [("layer", _Layer), ("mixed", c_void_p), ("mixed_pixel", c_ssize_t)]


class _Tiled(Structure):
    _fields_ = [("layer", _Layer), ("in_channels", c_int32), ("input", c_void_p), ("in_pixel", c_ssize_t), ("weight", c_void_p)]


class _Conv3x3(Structure):
    _fields_ = [
        *(("height", c_int32), ("width", c_int32), ("in_channels", c_int32), ("out_channels", c_int32)),
        *(("input", c_void_p), ("in_pixel", c_ssize_t), ("weight", c_void_p), ("out", c_void_p), ("out_pixel", c_ssize_t)),
    ]


class _Kernel(Structure):
    _fields_ = [
        ("name", c_char_p),
        *(
            (name, CFUNCTYPE(None, POINTER(call), c_int32, c_int32))
            for name, call in (("sample", _Sample), ("tiled", _Tiled), ("conv3x3", _Conv3x3))
        ),
    ]


class _Int8Deform(Structure):  # of int8.h
    _fields_ = [
        *(("layer", _Layer), ("in_channels", c_int32), ("in_zero", c_int32), ("input", c_void_p), ("in_pixel", c_ssize_t)),
        *(("weight", c_void_p), ("out_zero", c_int32), ("out", c_void_p), ("out_pixel", c_ssize_t)),
    ]


class _Int8Conv3x3(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("height", "width", "in_channels", "out_channels", "in_zero")),
        *(("input", c_void_p), ("in_pixel", c_ssize_t), ("weight", c_void_p), ("out", c_void_p), ("out_pixel", c_ssize_t)),
    ]


class _Int8Kernel(Structure):
    _fields_ = [
        ("name", c_char_p),
        *((name, CFUNCTYPE(None, POINTER(call), c_int32, c_int32)) for name, call in (("deform", _Int8Deform), ("conv3x3", _Int8Conv3x3))),
    ]


@dataclass(frozen=True)
class Layer:
    """One image's call, all arrays dense float32. With ``nhwc`` false, ``predicted`` is (P, H, W) and the output (O, H, W)."""

    predicted: np.ndarray
    """Its first 27 channels count."""
    bias: np.ndarray
    """(O,)"""
    offset_limit: float = math.inf
    """Pixels."""
    negative_slope: float = 1.0
    nhwc: bool = False
    """``predicted`` is (H, W, P) and the output (H, W, O)."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.predicted.shape[:2] if self.nhwc else self.predicted.shape[1:]

    def empty_output(self) -> np.ndarray:
        channels, (height, width) = len(self.bias), self.size
        return np.empty((height, width, channels) if self.nhwc else (channels, height, width), np.float32)

    def _struct(self, out: np.ndarray) -> _Layer:
        height, width = self.size
        strides = [(array.shape[2], 1) if self.nhwc else (1, height * width) for array in (self.predicted, out)]
        bounds = (self.offset_limit, self.negative_slope)
        return _Layer(height, width, len(self.bias), _data(self.predicted), *strides[0], _data(self.bias), _data(out), *strides[1], *bounds)


@dataclass(frozen=True)
class Kernel:
    """One implementation. Its functions compute output pixels ``first`` to ``last`` (default: all), counted row by row."""

    name: str
    _functions: _Kernel
    _library: Any

    def sample(self, layer: Layer, mixed: np.ndarray, out: np.ndarray, first: int = 0, last: int | None = None) -> np.ndarray:
        """Sample ``mixed`` (H, W, 9 * O or more) into ``out``."""
        call = _Sample(layer._struct(out), _data(mixed), mixed.shape[-1])
        self._functions.sample(ctypes.byref(call), first, math.prod(layer.size) if last is None else last)
        return out

    def tiled(
        self, layer: Layer, image: np.ndarray, weight: np.ndarray, out: np.ndarray, first: int = 0, last: int | None = None
    ) -> np.ndarray:
        """Sample ``image`` (H, W, C or more), multiply by ``weight`` (9, C, O), into ``out``."""
        call = _Tiled(layer._struct(out), weight.shape[1], _data(image), image.shape[-1], _data(weight))
        self._functions.tiled(ctypes.byref(call), first, math.prod(layer.size) if last is None else last)
        return out

    def conv3x3(self, image: np.ndarray, weight: np.ndarray, bias: np.ndarray, first: int = 0, last: int | None = None) -> np.ndarray:
        """Convolve ``image`` (H, W, C or more) with ``weight`` (9, C, O): (H, W, O), NaN in tiles outside ``first`` to ``last``."""
        height, width, step = image.shape
        _, inputs, outputs = weight.shape
        prepared = np.empty(self._library.acwface_conv3x3_floats(inputs, outputs), np.float32)
        self._library.acwface_conv3x3_prepare(inputs, outputs, c_void_p(_data(weight)), c_void_p(_data(bias)), c_void_p(_data(prepared)))
        out = np.full((height, width, outputs), np.nan, np.float32)
        call = _Conv3x3(height, width, inputs, outputs, _data(image), step, _data(prepared), _data(out), outputs)
        tiles = self._library.acwface_conv3x3_tiles(height, width)
        self._functions.conv3x3(ctypes.byref(call), first, tiles if last is None else last)
        return out


@dataclass(frozen=True)
class Int8Kernel:
    """One implementation in integers. ``zero`` is the value that stands for 0."""

    name: str
    _functions: _Int8Kernel
    _library: Any

    def deform(
        self,
        layer: Layer,
        image: np.ndarray,
        zero: int,
        weight: np.ndarray,
        scale: np.ndarray,
        out_zero: int,
        first: int = 0,
        last: int | None = None,
    ) -> np.ndarray:
        """A deformable convolution of ``image`` (H, W, C or more), uint8, by ``weight`` (9, C, O), int8.

        ``scale`` (O,) and the layer's bias are in steps of the output: (H, W, O) uint8, 0 outside ``first`` to ``last``.
        """
        (height, width), inputs, outputs = layer.size, *weight.shape[1:]
        prepared = self._prepare(weight, scale, layer.bias)
        out = np.zeros((height, width, outputs), np.uint8)
        of = layer._struct(layer.empty_output())
        call = _Int8Deform(
            of, inputs, zero, _data(image, np.uint8), image.shape[-1], _data(prepared, np.uint8), out_zero, _data(out, np.uint8), outputs
        )
        self._functions.deform(ctypes.byref(call), first, height * width if last is None else last)
        return out

    def conv3x3(
        self, image: np.ndarray, zero: int, weight: np.ndarray, scale: np.ndarray, bias: np.ndarray, first: int = 0, last: int | None = None
    ) -> np.ndarray:
        """Convolve ``image`` (H, W, C or more), uint8, with ``weight`` (9, C, O), int8.

        Gives (H, W, O) float32, NaN outside ``first`` to ``last``.
        """
        (height, width, step), (_, inputs, outputs) = image.shape, weight.shape
        prepared = self._prepare(weight, scale, bias)
        out = np.full((height, width, outputs), np.nan, np.float32)
        call = _Int8Conv3x3(
            height, width, inputs, outputs, zero, _data(image, np.uint8), step, _data(prepared, np.uint8), _data(out), outputs
        )
        self._functions.conv3x3(ctypes.byref(call), first, height * width if last is None else last)
        return out

    def _prepare(self, weight: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
        _, inputs, outputs = weight.shape
        prepared = np.empty(self._library.acwface_int8_bytes(inputs, outputs), np.uint8)
        arrays = (_data(weight, np.int8), _data(scale), _data(bias), _data(prepared, np.uint8))
        self._library.acwface_int8_prepare(inputs, outputs, *map(c_void_p, arrays))
        return prepared


def _data(array: np.ndarray, dtype: type = np.float32) -> int:
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    return array.ctypes.data


def open_kernels(library: Path) -> list[Kernel]:
    """The implementations in any of the built libraries that this processor can run, the best first."""
    functions: Any = ctypes.CDLL(str(library))
    functions.acwface_kernel.restype = POINTER(_Kernel)
    functions.acwface_conv3x3_floats.restype = c_size_t
    kernels = []
    while kernel := functions.acwface_kernel(len(kernels)):
        kernels.append(Kernel(kernel.contents.name.decode(), kernel.contents, functions))
    return kernels


def open_int8_kernels(library: Path) -> list[Int8Kernel]:
    """Those in integers, likewise."""
    functions: Any = ctypes.CDLL(str(library))
    functions.acwface_int8_kernel.restype = POINTER(_Int8Kernel)
    functions.acwface_int8_bytes.restype = c_size_t
    kernels = []
    while kernel := functions.acwface_int8_kernel(len(kernels)):
        kernels.append(Int8Kernel(kernel.contents.name.decode(), kernel.contents, functions))
    return kernels


def library_version(library: Path) -> str:
    """:data:`export.kernel.VERSION` of the sources that a library was built from."""
    functions: Any = ctypes.CDLL(str(library))
    functions.acwface_kernel_version.restype = c_char_p
    return functions.acwface_kernel_version().decode()
