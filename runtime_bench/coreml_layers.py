"""Core ML's older format, a network of layers, evaluated by torch as :mod:`runtime_bench.mil` does programs: it alone has custom layers.

Layers mean what Apple's ``NeuralNetwork.proto`` says (https://apple.github.io/coremltools/mlmodel/Format/NeuralNetwork.html). The custom
layer is what ``export/kernel/README.md`` defines as DeformSample. Such files say nothing of precision: arithmetic is in float32 here, a
phone may take less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.deform_conv import TAPS
from model.errors import UserError
from runtime_bench.mil import as_planes, pixel_shuffle, read_specification, sample


class Network:
    """A neural network with a picture for input.

    Args:
        package: the ``.mlpackage``.

    Raises:
        UserError: the package is damaged, holds another kind of model, or a layer that is not known here.
    """

    def __init__(self, package: Path) -> None:
        spec, _ = read_specification(package)
        if spec.WhichOneof("Type") != "neuralNetwork":
            raise UserError(f"{package} is no neural network but {spec.WhichOneof('Type') or 'nothing'}; only Core ML itself can run it")
        self.description = spec.description
        self._layers = spec.neuralNetwork.layers
        self._preprocessing = spec.neuralNetwork.preprocessing
        for kind in self.layers:
            if kind not in _LAYERS:
                raise UserError(f"{package}: layer {kind} is not known to the evaluator; only Core ML itself can run it")
        self._constants = [_constants(layer) for layer in self._layers]

    @property
    def layers(self) -> list[str]:
        """Kinds of the layers in their order."""
        return [layer.WhichOneof("layer") for layer in self._layers]

    def __call__(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        """Run it: ``(H, W, 3)`` uint8 RGB to outputs by name."""
        planes = as_planes(picture, self.description)
        for step in self._preprocessing:
            planes = _scaled(planes, step.scaler, self.description.input[0].type.imageType)
        values = {self.description.input[0].name: planes}
        with torch.inference_mode():
            for layer, constants in zip(self._layers, self._constants, strict=True):
                kind = layer.WhichOneof("layer")
                results = _LAYERS[kind](getattr(layer, kind), [*(values[name] for name in layer.input), *constants])
                for name, result in zip(layer.output, results if isinstance(results, Sequence) else (results,), strict=True):
                    values[name] = result
        return {output.name: values[output.name].numpy() for output in self.description.output}


def _scaled(planes: Tensor, scaler: Any, image: Any) -> Tensor:
    biases = [scaler.redBias, scaler.greenBias, scaler.blueBias]
    if image.colorSpace == image.BGR:
        biases.reverse()
    return planes * scaler.channelScale + torch.tensor(biases).view(1, 3, 1, 1)


def _weights(held: Any, *shape: int) -> Tensor:
    if held.float16Value:
        return torch.frombuffer(bytearray(held.float16Value), dtype=torch.float16).float().view(shape)
    return torch.tensor(list(held.floatValue)).view(shape)


def _constants(layer: Any) -> list[Tensor]:
    """What a layer holds, to be taken after its inputs."""
    kind = layer.WhichOneof("layer")
    held = getattr(layer, kind)
    if kind == "loadConstantND":
        return [_weights(held.data, *held.shape)]
    if kind != "convolution":
        return []
    weight = _weights(held.weights, held.outputChannels, held.kernelChannels, *held.kernelSize)
    return [weight, _weights(held.bias, held.outputChannels)] if held.hasBias else [weight]


def _convolution(layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    if layer.isDeconvolution or layer.WhichOneof("ConvolutionPaddingType") != "valid":
        raise UserError("such convolutions are not known to the evaluator")
    x, weight, *bias = inputs
    x = functional.pad(x, _borders(layer.valid.paddingAmounts))
    return functional.conv2d(x, weight, *bias, stride=list(layer.stride), dilation=list(layer.dilationFactor), groups=layer.nGroups)


def _borders(amounts: Any) -> tuple[int, int, int, int]:
    """In torch's order."""
    vertical, horizontal = amounts.borderAmounts
    return horizontal.startEdgeSize, horizontal.endEdgeSize, vertical.startEdgeSize, vertical.endEdgeSize


def _padding(layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    if layer.WhichOneof("PaddingType") != "constant":
        raise UserError("such padding is not known to the evaluator")
    return functional.pad(inputs[0], _borders(layer.paddingAmounts), value=layer.constant.value)


def _activation(layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    (x,) = inputs
    kind = layer.WhichOneof("NonlinearityType")
    if kind == "leakyReLU":
        return torch.where(x < 0, layer.leakyReLU.alpha * x, x)
    if kind == "linear":
        return layer.linear.alpha * x + layer.linear.beta
    if kind not in ("ReLU", "sigmoid"):
        raise UserError(f"activation {kind} is not known to the evaluator")
    return x.clamp(min=0) if kind == "ReLU" else 1 / (1 + (-x).exp())


def _pooling(layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    if not layer.globalPooling or layer.type not in (layer.AVERAGE, layer.MAX):
        raise UserError("such pooling is not known to the evaluator")
    return (inputs[0].mean if layer.type == layer.AVERAGE else inputs[0].amax)((2, 3), keepdim=True)


def _upsample(layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    if layer.mode != layer.NN:
        raise UserError("such upsampling is not known to the evaluator")
    vertical, horizontal = layer.scalingFactor
    return inputs[0].repeat_interleave(vertical, dim=2).repeat_interleave(horizontal, dim=3)


def _reduced(function: Callable[..., Tensor]) -> Callable[[Any, Sequence[Tensor]], Tensor]:
    return lambda layer, inputs: function(inputs[0], tuple(layer.axes), keepdim=layer.keepDims)


def _expanded(layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    (x,) = inputs
    for axis in sorted(axis % (x.dim() + len(layer.axes)) for axis in layer.axes):
        x = x.unsqueeze(axis)
    return x


def _concatenated(axis: int) -> Callable[[Any, Sequence[Tensor]], Tensor]:
    return lambda layer, inputs: torch.cat(inputs, dim=axis)


def _combined(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Sequence[Tensor]], Tensor]:
    """Of two inputs, or of one and a number."""
    return lambda layer, inputs: function(inputs[0], inputs[1] if len(inputs) == 2 else torch.tensor(layer.alpha))


_PIXEL_SHUFFLE = 2
"""Of ``ReorganizeDataLayerParams.ReorganizationType``."""


def _reorganized(layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    if layer.mode != _PIXEL_SHUFFLE:
        raise UserError(f"reorganisation of mode {layer.mode} is not known to the evaluator")
    return pixel_shuffle(inputs[0], layer.blockSize)


def _custom(layer: Any, inputs: Sequence[Tensor]) -> Tensor:
    """DeformSample: ``(1, H, W, 27)`` predicted, ``(1, H, W, 9 O)`` mixed, ``(O,)`` bias to ``(1, H, W, O)``."""
    if layer.className != "AcwfaceDeformSample":
        raise UserError(f"custom layer {layer.className} is not known to the evaluator; only Core ML itself can run it")
    predicted, mixed, bias = inputs
    outputs = layer.parameters["channels"].intValue
    limit, slope = (layer.parameters[name].doubleValue for name in ("offset_limit", "negative_slope"))
    height, width = predicted.shape[1:3]
    total = bias.view(1, -1, 1, 1)
    for tap in range(TAPS):
        down, right = predicted[..., 2 * tap], predicted[..., 2 * tap + 1]
        if limit:
            down, right = down.clamp(-limit, limit), right.clamp(-limit, limit)
        rows = torch.arange(height).view(1, -1, 1) + (tap // 3 - 1) + down
        columns = torch.arange(width).view(1, 1, -1) + (tap % 3 - 1) + right
        channels = mixed[..., tap * outputs : (tap + 1) * outputs].permute(0, 3, 1, 2)
        mask = 2 / (1 + (-predicted[..., 2 * TAPS + tap]).exp())
        total = total + mask.unsqueeze(1) * sample(channels, rows, columns, 0.0)
    return torch.where(total < 0, slope * total, total).permute(0, 2, 3, 1)


_LAYERS: dict[str, Callable[[Any, Sequence[Tensor]], Tensor | Sequence[Tensor]]] = {
    "activation": _activation,
    "add": _combined(torch.add),
    "concat": _concatenated(-3),
    "concatND": lambda layer, inputs: torch.cat(list(inputs), dim=layer.axis),
    "convolution": _convolution,
    "custom": _custom,
    "expandDims": _expanded,
    "loadConstantND": lambda layer, inputs: inputs[0],
    "multiply": _combined(torch.mul),
    "padding": _padding,
    "pooling": _pooling,
    "reduceMax": _reduced(torch.amax),
    "reduceMean": _reduced(torch.mean),
    "reorganizeData": _reorganized,
    "reshapeStatic": lambda layer, inputs: inputs[0].reshape(list(layer.targetShape)),
    "splitND": lambda layer, inputs: inputs[0].split(list(layer.splitSizes), dim=layer.axis),
    "squeeze": lambda layer, inputs: inputs[0].squeeze() if layer.squeezeAll else inputs[0].squeeze(tuple(layer.axes)),
    "transpose": lambda layer, inputs: inputs[0].permute(list(layer.axes)),
    "upsample": _upsample,
}
