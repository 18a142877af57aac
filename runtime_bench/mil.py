"""What a saved ``.mlpackage`` computes, found out by torch where Core ML is not at hand.

An ML Program is read from the file alone: specification, then weights, by their published layouts. What an operator means is written down
here anew, from Apple's definition of the Model Intermediate Language
(https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html), not taken from the converter. Values have the
types that the program declares. Arithmetic on float16 is done in float32 and rounded once an operator; a phone's processors may round
oftener. Integers are what ``quantize`` makes of numbers, rounded to the nearest, halves to the even one, and saturated; between
``dequantize`` and ``quantize`` the program says float, and so it is computed here, where a processor may multiply the integers: those
products are exact in both. Times of this say nothing about Core ML's.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.errors import UserError

logging.getLogger("coremltools").setLevel(logging.ERROR)  # it warns of a platform without Core ML, and of torch releases
try:
    from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2
    from google.protobuf.message import DecodeError
except ImportError as error:
    raise UserError(f"Core ML files need coremltools, which cannot be loaded ({error}); run: make setup") from None

_TYPES = {
    MIL_pb2.DataType.Value(name): dtype
    for name, dtype in {
        "FLOAT16": torch.float16, "FLOAT32": torch.float32, "INT32": torch.int32, "INT8": torch.int8, "UINT8": torch.uint8,
        "BOOL": torch.bool,
    }.items()
}  # fmt: skip
_STRING = MIL_pb2.DataType.Value("STRING")
_BLOB_TYPES = {torch.float16: 1, torch.float32: 2, torch.uint8: 3, torch.int8: 4}
"""In a weight file, for each type that our programs keep there."""
_SENTINEL, _BLOB_HEADER = 0xDEADBEEF, np.dtype([("sentinel", "<u4"), ("type", "<u4"), ("bytes", "<u8"), ("offset", "<u8")])


class Program:
    """An ML Program with one function.

    Args:
        package: the ``.mlpackage``.

    Raises:
        UserError: the package is damaged, holds another kind of model, or an operator that is not known here.
    """

    def __init__(self, package: Path) -> None:
        self._package = package
        spec, folder = read_specification(package)
        if spec.WhichOneof("Type") != "mlProgram":
            raise UserError(f"{package} is no ML Program but {spec.WhichOneof('Type') or 'nothing'}; only Core ML itself can run it")
        self.description = spec.description
        function = spec.mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
        (self._input,) = function.inputs
        self._outputs = list(block.outputs)
        self._constants: dict[str, Any] = {}
        weights = _Weights(package, folder)
        self._steps: list[_Step] = []
        for operation in block.operations:
            if operation.type == "const":
                self._constants[operation.outputs[0].name] = _value(operation.attributes["val"], weights)
            elif operation.type.startswith("constexpr_"):
                self._constants[operation.outputs[0].name] = _compressed(operation, package, weights)
            else:
                self._steps.append(_step(operation, package, weights))
        self._forget = _last_uses(self._steps, self._outputs)

    @property
    def operators(self) -> list[str]:
        """Kinds of the operators in their order, constants left out."""
        return [step.kind for step in self._steps]

    @property
    def graph(self) -> list[tuple[str, Collection[str], Collection[str]]]:
        """The same, each with the names of what it takes, constants left out, and gives."""
        taken = [[name for names in step.arguments.values() for name in names if name not in self._constants] for step in self._steps]
        return [(step.kind, names, [output.name for output in step.outputs]) for step, names in zip(self._steps, taken, strict=True)]

    def __call__(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        """Run the program.

        Args:
            picture: ``(H, W, 3)`` uint8 RGB, of the size that it takes.

        Returns:
            Its outputs by name.
        """
        found = {name: value.numpy() for name, value in self._run(picture) if name in self._outputs}
        return {name: found[name] for name in self._outputs}

    def watch(self, picture: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Run the program, and give every float value that it computes with its name, as it is computed: together they are large."""
        return ((name, value.float().numpy()) for name, value in self._run(picture) if value.is_floating_point())

    def _run(self, picture: np.ndarray) -> Iterator[tuple[str, Tensor]]:
        """Every value that is computed."""
        planes = as_planes(picture, self.description).to(_TYPES[self._input.type.tensorType.dataType])
        values = self._constants | {self._input.name: planes}
        for step, unused in zip(self._steps, self._forget, strict=True):
            with torch.inference_mode():
                arguments = {name: [values[each] for each in names] for name, names in step.arguments.items()} | step.immediate
                results = _OPERATORS[step.kind](**{name: _widened(given, name in _LISTS) for name, given in arguments.items()})
                for output, result in zip(step.outputs, results if isinstance(results, Sequence) else (results,), strict=True):
                    if tuple(result.shape) != output.shape:
                        raise _damaged(self._package, f"{output.name} has shape {tuple(result.shape)}, declared is {output.shape}")
                    values[output.name] = result.to(output.dtype)
            yield from ((output.name, values[output.name]) for output in step.outputs)
            for name in unused:
                del values[name]


@dataclass(frozen=True)
class _Output:
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Step:
    """An operator of the program."""

    kind: str
    arguments: Mapping[str, Sequence[str]]
    """Names of values, by parameter."""
    immediate: Mapping[str, Sequence[Any]]
    """Parameters that are written where they are used."""
    outputs: Sequence[_Output]


def _damaged(package: Path, what: str) -> UserError:
    return UserError(f"{package} is damaged ({what}); export it again")


@contextmanager
def reading(package: Path) -> Iterator[None]:
    """Whatever a package makes the evaluator stumble over that does not hold together, as a :class:`UserError`."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(package, f"{type(error).__name__}: {error}") from error


def read_specification(package: Path) -> tuple[Any, Path]:
    """A package's ``Model`` message, and the folder that it is in.

    Raises:
        UserError: the package is damaged.
    """
    try:
        manifest = json.loads((package / "Manifest.json").read_bytes())
        item = PurePosixPath(manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(package, "Manifest.json does not say where the model is") from None
    path = _inside(package, package / "Data", item)
    try:
        return Model_pb2.Model.FromString(path.read_bytes()), path.parent
    except DecodeError:
        raise _damaged(package, f"{path.name} is no Core ML specification") from None


def as_planes(picture: np.ndarray, description: Any) -> Tensor:
    """``(H, W, 3)`` uint8 RGB to ``(1, 3, H, W)`` float, in the colours that the only input is described with."""
    (taken,) = description.input
    colours = FeatureTypes_pb2.ImageFeatureType.ColorSpace.Name(taken.type.imageType.colorSpace)
    if colours not in ("BGR", "RGB") or picture.shape[:2] != (taken.type.imageType.height, taken.type.imageType.width):
        raise UserError(f"a picture of {picture.shape[1]}x{picture.shape[0]} does not go into this input, or its colours are not known")
    return torch.from_numpy(np.array(picture[..., ::-1] if colours == "BGR" else picture)).permute(2, 0, 1)[None].float()


def _inside(package: Path, folder: Path, path: PurePosixPath) -> Path:
    """``path`` under ``folder``, a file of the package."""
    if path.is_absolute() or ".." in path.parts or not (folder / path).is_file():
        raise _damaged(package, f"it has no file {path}")
    return folder / path


class _Weights:
    """Weight files: a header of 64 bytes for each tensor, with where its bytes are."""

    def __init__(self, package: Path, folder: Path) -> None:
        self._package, self._folder = package, folder
        self._files: dict[str, bytes] = {}

    def read(self, name: str, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        if name not in self._files:
            place = PurePosixPath(name.removeprefix("@model_path/"))
            self._files[name] = _inside(self._package, self._folder, place).read_bytes()
        data = self._files[name]
        count = int(np.prod(shape))
        if offset + 64 > len(data):
            raise _damaged(self._package, f"{name} ends before {offset}")
        header = np.frombuffer(data, _BLOB_HEADER, 1, offset)[0]
        start, length = int(header["offset"]), int(header["bytes"])
        if header["sentinel"] != _SENTINEL or header["type"] != _BLOB_TYPES.get(dtype) or length != count * dtype.itemsize:
            raise _damaged(self._package, f"{name} has no {dtype} of shape {shape} at {offset}")
        if start + length > len(data):
            raise _damaged(self._package, f"{name} ends before {start + length}")
        return torch.frombuffer(bytearray(data[start : start + length]), dtype=dtype).view(shape)


def _tensor_type(kind: Any) -> tuple[torch.dtype, tuple[int, ...]]:
    return _TYPES[kind.tensorType.dataType], tuple(dimension.constant.size for dimension in kind.tensorType.dimensions)


def _value(value: Any, weights: _Weights) -> Any:
    """A constant: a string, or a tensor."""
    if value.type.tensorType.dataType == _STRING:
        return value.immediateValue.tensor.strings.values[0]
    dtype, shape = _tensor_type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        return weights.read(value.blobFileValue.fileName, value.blobFileValue.offset, dtype, shape)
    tensor = value.immediateValue.tensor
    held = getattr(tensor, tensor.WhichOneof("value")).values
    if isinstance(held, bytes):  # of types that protocol buffers do not have
        return torch.frombuffer(bytearray(held), dtype=dtype).view(shape)
    return torch.tensor(list(held), dtype=dtype).view(shape)


def _compressed(operation: Any, package: Path, weights: _Weights) -> Tensor:
    """A constant that is stored in fewer bits, in its own type."""
    given = {name: value for name, value in operation.attributes.items() if name != "name"}
    _require_known(operation.type, given, package)
    (output,) = operation.outputs
    value = _OPERATORS[operation.type](**{name: _widened([_value(each, weights)], False) for name, each in given.items()})
    dtype, shape = _tensor_type(output.type)
    if tuple(value.shape) != shape:
        raise _damaged(package, f"{output.name} has shape {tuple(value.shape)}, declared is {shape}")
    return value.to(dtype)


def _require_known(kind: str, given: Collection[str], package: Path) -> None:
    """Raise a :class:`UserError` for an operator, or parameters of it, that are not in :data:`_OPERATORS`."""
    if kind not in _OPERATORS:
        raise UserError(f"{package}: operator {kind} is not known to the evaluator; only Core ML itself can run it")
    known = inspect.signature(_OPERATORS[kind]).parameters
    required = {name for name, parameter in known.items() if parameter.default is parameter.empty}
    if set(given) - set(known) or required - set(given):
        raise UserError(f"{package}: {kind} with {', '.join(sorted(given))} is not known to the evaluator")


def _step(operation: Any, package: Path, weights: _Weights) -> _Step:
    _require_known(operation.type, operation.inputs, package)
    arguments, immediate = {}, {}
    for name, given in operation.inputs.items():
        if given.arguments[0].WhichOneof("binding") == "name":
            arguments[name] = [argument.name for argument in given.arguments]
        else:
            immediate[name] = [_value(argument.value, weights) for argument in given.arguments]
    outputs = [_Output(output.name, *_tensor_type(output.type)) for output in operation.outputs]
    return _Step(operation.type, arguments, immediate, outputs)


def _last_uses(steps: Sequence[_Step], outputs: Sequence[str]) -> list[list[str]]:
    """For each step what nobody needs behind it: maps are large."""
    made = {output.name for step in steps for output in step.outputs}
    forget: list[list[str]] = []
    needed = set(outputs)
    for step in reversed(steps):
        touched = {name for names in step.arguments.values() for name in names} | {output.name for output in step.outputs}
        forget.insert(0, sorted((touched & made) - needed))
        needed |= touched
    return forget


_LISTS = ("values",)
"""Parameters that take several values."""


def _widened(given: Sequence[Any], many: bool) -> Any:
    wide = [value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value for value in given]
    return wide if many else wide[0]


# The operators. Parameters are named as Apple's definition has them; arrays of numbers arrive as tensors.


def _expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _conv(
    x: Tensor,
    weight: Tensor,
    strides: Tensor,
    pad_type: str,
    pad: Tensor,
    dilations: Tensor,
    groups: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    if pad_type not in ("custom", "valid"):
        raise UserError(f"convolutions with pad_type {pad_type} are not known to the evaluator")
    if pad_type == "custom":
        before, after = pad.tolist()[0::2], pad.tolist()[1::2]
        x = functional.pad(x, [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair])
    convolve = {3: functional.conv1d, 4: functional.conv2d}[x.dim()]
    return convolve(x, weight, bias, stride=strides.tolist(), dilation=dilations.tolist(), groups=int(groups))


def _max_pool(
    x: Tensor, kernel_sizes: Tensor, strides: Tensor, pad_type: str, pad: Tensor | None = None, ceil_mode: Tensor | None = None
) -> Tensor:
    if pad_type not in ("custom", "valid") or (ceil_mode is not None and bool(ceil_mode)):
        raise UserError(f"pooling with pad_type {pad_type} and ceil_mode {ceil_mode} is not known to the evaluator")
    if pad_type == "custom" and pad is not None:
        before, after = pad.tolist()[0::2], pad.tolist()[1::2]
        sides = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
        x = functional.pad(x, sides, value=-torch.inf)
    return functional.max_pool2d(x, kernel_sizes.tolist(), strides.tolist())


def _slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    axes = x.dim()
    steps = [1] * axes if stride is None else stride.tolist()
    if min(steps) < 1:
        raise UserError("slices that walk backwards are not known to the evaluator")
    open_begin, open_end, squeezed = ([False] * axes if mask is None else mask.tolist() for mask in (begin_mask, end_mask, squeeze_mask))
    index: list[int | slice] = []
    for axis in range(axes):
        first, last = int(begin[axis]), int(end[axis])
        if squeezed[axis]:
            index.append(first)
        else:
            index.append(slice(None if open_begin[axis] else first, None if open_end[axis] else last, steps[axis]))
    return x[tuple(index)]


def _split(x: Tensor, axis: Tensor, split_sizes: Tensor | None = None, num_splits: Tensor | None = None) -> Sequence[Tensor]:
    return x.split(x.shape[int(axis)] // int(num_splits) if split_sizes is None else split_sizes.tolist(), dim=int(axis))


def _concat(values: Sequence[Tensor], axis: Tensor, interleave: Tensor | None = None) -> Tensor:
    if interleave is not None and bool(interleave):
        raise UserError("interleaving concatenations are not known to the evaluator")
    return torch.cat(values, dim=int(axis))


def _upsample(x: Tensor, scale_factor_height: Tensor, scale_factor_width: Tensor) -> Tensor:
    for axis, factor in ((2, float(scale_factor_height)), (3, float(scale_factor_width))):
        if not factor.is_integer():
            raise UserError(f"upsampling by {factor} is not known to the evaluator")
        x = x.repeat_interleave(int(factor), dim=axis)
    return x


def _reduce(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
        return function(x, tuple(range(x.dim())) if axes is None else tuple(axes.tolist()), keepdim=bool(keep_dims))

    return reduce


def _pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | None = None) -> Tensor:
    if mode != "constant":
        raise UserError(f"padding of mode {mode} is not known to the evaluator")
    pairs = pad.view(-1, 2).flip(0).flatten().tolist()  # torch begins with the last axis
    return functional.pad(x, pairs, value=0.0 if constant_val is None else float(constant_val))


def _matmul(x: Tensor, y: Tensor, transpose_x: Tensor | None = None, transpose_y: Tensor | None = None) -> Tensor:
    return (x.mT if transpose_x is not None and bool(transpose_x) else x) @ (y.mT if transpose_y is not None and bool(transpose_y) else y)


def pixel_shuffle(x: Tensor, upscale_factor: Tensor | int) -> Tensor:
    """``(N, C * f * f, H, W)`` to ``(N, C, H * f, W * f)``: channels of one C become a block of pixels, row by row."""
    factor = int(upscale_factor)
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels // factor**2, factor, factor, height, width)
    return blocks.permute(0, 1, 4, 2, 5, 3).reshape(batch, -1, height * factor, width * factor)


def _resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Tensor,
    coordinates_mode: str,
    align_corners: Tensor,
) -> Tensor:
    modes = (sampling_mode, padding_mode, coordinates_mode, bool(align_corners))
    if modes != ("bilinear", "constant", "normalized_minus_one_to_one", False):
        raise UserError(f"resampling with {', '.join(map(str, modes))} is not known to the evaluator")
    height, width = x.shape[2:]
    # -1 and 1 are the outer edges of the first and last pixel.
    columns, rows = (
        ((values.float() + 1) * length - 1) / 2 for values, length in ((coordinates[..., 0], width), (coordinates[..., 1], height))
    )
    return sample(x, rows, columns, float(padding_value))


def sample(x: Tensor, rows: Tensor, columns: Tensor, outside: float) -> Tensor:
    """Bilinear samples of ``(N, C, H, W)`` at ``(N, H', W')`` rows and columns, in pixels from the centre of the first: ``(N, C, H', W')``.

    The picture goes on beyond its borders with ``outside``.
    """
    batch, channels, height, width = x.shape
    rows, columns = rows.clamp(-1, height), columns.clamp(-1, width)  # further out nothing changes any more, and infinity has no fraction
    top, left = rows.floor(), columns.floor()
    lower, right = rows - top, columns - left
    pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
    first = torch.arange(batch).view(-1, 1, 1) * height * width
    total = torch.zeros(rows.numel(), channels)
    for y, vertical in ((top, 1 - lower), (top + 1, lower)):
        for x_, horizontal in ((left, 1 - right), (left + 1, right)):
            inside = ((y >= 0) & (y < height) & (x_ >= 0) & (x_ < width)).reshape(-1, 1)
            number = first + y.nan_to_num().clamp(0, height - 1) * width + x_.nan_to_num().clamp(0, width - 1)
            value = torch.where(inside, pixels[number.long().flatten()], outside)
            total += value * (vertical * horizontal).reshape(-1, 1)
    return total.view(*rows.shape, channels).permute(0, 3, 1, 2)


def _dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    zero = torch.tensor(0.0) if zero_point is None else zero_point.float()
    return _along(axis, scale, input) * (input.float() - _along(axis, zero, input))


def _quantize(
    input: Tensor,
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: Tensor | None = None,
) -> Tensor:
    limits = torch.iinfo({"int8": torch.int8, "uint8": torch.uint8}[output_dtype])
    zero = torch.tensor(0.0) if zero_point is None else zero_point.float()
    return ((input / _along(axis, scale, input)).round() + _along(axis, zero, input)).clamp(limits.min, limits.max)


def _along(axis: Tensor | None, values: Tensor, x: Tensor) -> Tensor:
    """One number for all of ``x``, or one for each place of an axis of it."""
    return values if values.dim() == 0 else values.view([-1 if place == int(axis) % x.dim() else 1 for place in range(x.dim())])


_OPERATORS: dict[str, Callable[..., Tensor | Sequence[Tensor]]] = {
    "abs": lambda x: x.abs(),
    "add": lambda x, y: x + y,
    "cast": lambda x, dtype: x,  # the output's type says what becomes of it
    "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
    "concat": _concat,
    "constexpr_affine_dequantize": lambda quantized_data, zero_point, scale, axis: _dequantize(quantized_data, scale, zero_point, axis),
    "conv": _conv,
    "dequantize": _dequantize,
    "elu": lambda x, alpha: torch.where(x > 0, x, alpha * (x.exp() - 1)),
    "expand_dims": _expand_dims,
    "leaky_relu": lambda x, alpha: torch.where(x < 0, alpha * x, x),
    "linear": lambda x, weight, bias=None: functional.linear(x, weight, bias),
    "matmul": _matmul,
    "max_pool": _max_pool,
    "mul": lambda x, y: x * y,
    "pad": _pad,
    "pixel_shuffle": pixel_shuffle,
    "quantize": _quantize,
    "real_div": lambda x, y: x / y,
    "reduce_max": _reduce(torch.amax),
    "reduce_mean": _reduce(torch.mean),
    "reduce_sum": _reduce(torch.sum),
    "relu": lambda x: x.clamp(min=0),
    "resample": _resample,
    "reshape": lambda x, shape: x.reshape(shape.tolist()),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "silu": lambda x: x / (1 + (-x).exp()),
    "slice_by_index": _slice_by_index,
    "softmax": lambda x, axis: torch.softmax(x, int(axis)),
    "split": _split,
    "squeeze": lambda x, axes=None: x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist())),
    "sub": lambda x, y: x - y,
    "transpose": lambda x, perm: x.permute(perm.tolist()),
    "upsample_nearest_neighbor": _upsample,
}
