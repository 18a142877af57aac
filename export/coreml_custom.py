"""Teaches coremltools the custom layer of route ``custom``: see :func:`export.coreml_routes.deform_sample`."""

from __future__ import annotations

from functools import cache
from typing import Any

CLASS = "AcwfaceDeformSample"
"""Of the layer, in an app."""


@cache
def register_custom_layer() -> None:
    """Once a process. Here, because it imports coremltools."""
    from coremltools.converters.mil import Builder, register_torch_op
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs
    from coremltools.converters.mil.mil import Operation, types
    from coremltools.converters.mil.mil.input_type import InputSpec, TensorInputType
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    @SSAOpRegistry.register_op(is_custom_op=True)
    class acwface_deform_sample(Operation):  # noqa: N801
        input_spec = InputSpec(
            predicted=TensorInputType(type_domain=types.fp32),
            mixed=TensorInputType(type_domain=types.fp32),
            bias=TensorInputType(type_domain=types.fp32),
            channels=TensorInputType(const=True, type_domain=types.int32),
            offset_limit=TensorInputType(const=True, type_domain=types.fp32),
            negative_slope=TensorInputType(const=True, type_domain=types.fp32),
        )
        bindings = {
            "class_name": CLASS,
            "input_order": ["predicted", "mixed", "bias"],
            "parameters": ["channels", "offset_limit", "negative_slope"],
            "description": "Samples of a deformable convolution whose tap matrices have been applied",
        }

        def type_inference(self) -> Any:
            return types.tensor(self.predicted.dtype, (*self.predicted.shape[:3], int(self.channels.val)))

    @register_torch_op(torch_alias=["acwface::deform_sample"])
    def translate_acwface_deform_sample(context: Any, node: Any) -> None:
        predicted, mixed, bias, channels, limit, slope = _get_inputs(context, node, expected=6)
        context.add(
            Builder.acwface_deform_sample(
                predicted=predicted,
                mixed=mixed,
                bias=bias,
                channels=channels.val,
                offset_limit=limit.val,
                negative_slope=slope.val,
                name=node.name,
            )
        )
