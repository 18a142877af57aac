"""The deformable layer against two implementations that are not ours: torchvision's and ONNX Runtime's."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torchvision.ops import deform_conv2d

from model.deform_conv import DeformConv2d


def random_layer(in_channels: int, out_channels: int, reach: float) -> DeformConv2d:
    """Offsets of about ``reach`` pixels that differ from place to place."""
    layer = DeformConv2d(in_channels, out_channels).eval()
    with torch.no_grad():
        for conv, scale in ((layer.offset_conv, reach), (layer.modulator_conv, 1.0)):
            conv.weight.normal_(std=scale / (9 * in_channels) ** 0.5)
            conv.bias.normal_(std=scale)
    return layer


def onnx_deform_conv(x, weight, offset, mask) -> np.ndarray:
    node = helper.make_node("DeformConv", ["x", "weight", "offset", "", "mask"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    inputs = {"x": x, "weight": weight, "offset": offset, "mask": mask}
    graph = helper.make_graph(
        [node],
        "deform",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, weight.shape[0], *x.shape[2:]))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]


@pytest.mark.parametrize(("height", "width", "reach"), [(12, 9, 0.5), (12, 9, 4.0), (7, 20, 60.0), (1, 1, 2.0)])
def test_agrees_with_torchvision_and_onnx_runtime_beyond_the_border(height, width, reach):
    layer = random_layer(8, 6, reach)
    x = torch.randn(1, 8, height, width)
    with torch.no_grad():
        offset, mask = layer.offset_conv(x), 2 * torch.sigmoid(layer.modulator_conv(x))
        ours = layer(x)
        theirs = deform_conv2d(x, offset, layer.weight, padding=1, mask=mask)
        other = onnx_deform_conv(x, layer.weight.detach(), offset, mask)
    assert offset.abs().max() > reach  # the case is what it says
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.numpy(), other, rtol=0, atol=2e-5)
    if reach >= 1:
        plain = torch.nn.functional.conv2d(x, layer.weight, padding=1)
        assert (ours - plain).abs().max() > 0.1  # offsets matter here


def test_a_fresh_layer_is_an_ordinary_convolution():
    layer = DeformConv2d(8, 6).eval()
    x = torch.randn(2, 8, 10, 11)
    torch.testing.assert_close(layer(x), torch.nn.functional.conv2d(x, layer.weight, padding=1), rtol=0, atol=1e-5)


def test_offsets_are_y_before_x():
    layer = DeformConv2d(1, 1).eval()
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1, 1] = 1.0  # the centre tap alone
        layer.offset_conv.bias[8] = 2.0  # its first offset
        x = torch.zeros(1, 1, 5, 5)
        x[0, 0, 3, 2] = 1.0
        assert layer(x)[0, 0, 1, 2] == 1.0  # two rows up sees it


def test_offset_limit_clamps():
    layer = random_layer(4, 4, 10.0)
    x = torch.randn(1, 4, 9, 9)
    layer.offset_limit = 1.0
    with torch.no_grad():
        offset = layer.offset_conv(x).clamp(-1, 1)
        mask = 2 * torch.sigmoid(layer.modulator_conv(x))
        torch.testing.assert_close(layer(x), deform_conv2d(x, offset, layer.weight, padding=1, mask=mask))
