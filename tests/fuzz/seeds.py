"""What fuzzing starts from: one small file of each kind, made here, and the beginnings of real ones where they are beside the project."""

from __future__ import annotations

import functools
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import scipy.io
import torch
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from export.kernel import VERSION
from export.tflite_model import pack_model
from model.artifact import AnchorSpec, File, InputTensor, Library, Manifest, OutputTensor, Parity, RuntimeSpec
from model.checkpoint import _public_names
from model.config import variant_config
from model.detector import Detector
from model.postprocess import Thresholds
from runtime_bench.record import (
    Curve,
    DeviceDrift,
    Drift,
    Example,
    Faces,
    ImageDrift,
    ImageTimes,
    Latency,
    Peak,
    Result,
    Roofline,
    SizeDrift,
    Spread,
    SubsetAP,
    SubsetInterval,
)
from tests.conftest import DATA

SIDE = 8
"""Of the input of every seed network, pixels: one anchor."""
CHANNELS = 4
_REPEATS = 9 * CHANNELS // 3
OUTPUTS = (("scores", ()), ("box_deltas", (4,)), ("landmark_deltas", (10,)))


def manifest(format: str, runtime: RuntimeSpec, layout: str, dtype: str = "float32") -> Manifest:
    """Of the seed network in one format; files are described by whoever writes them."""
    nothing = File("", "", 0)
    return Manifest(
        variant="acwface_dcn",
        dcn="none" if format == "coreml" else "custom",
        precision="fp32",
        format=format,
        weights="seed",
        model=nothing,
        reference=nothing,
        input=InputTensor(layout=layout, dtype=dtype, shape=(1, 3, SIDE, SIDE) if layout == "NCHW" else (1, SIDE, SIDE, 3)),
        outputs=tuple(OutputTensor(name, name, (1, 1, *rest)) for name, rest in OUTPUTS),
        anchors=AnchorSpec((SIDE,), ((16,),), (0.1, 0.2)),
        thresholds=Thresholds(),
        runtime=runtime,
        parity=Parity(1e-6, 1e-4, 1e-4, 1, 1),
    )


ONNX_MANIFEST = manifest("onnx", RuntimeSpec("onnxruntime", "1.17", Library("acwface_ort", VERSION)), "NCHW")
TFLITE_MANIFEST = manifest("tflite", RuntimeSpec("litert", "2.1", Library("acwface_litert", VERSION)), "NHWC")
COREML_MANIFEST = manifest("coreml", RuntimeSpec("coreml", "16"), "NCHW", "image")


def _fill(*shape: int) -> np.ndarray:
    return np.full(shape, 0.01, np.float32)


def onnx_model() -> bytes:
    """Channels often enough for a deformable layer, the three operators of ours, a mean over the picture, a linear layer an output."""
    nodes = [
        helper.make_node("Concat", ["image"] * _REPEATS, ["many"], axis=1),
        helper.make_node("Transpose", ["many"], ["rows"], perm=[0, 2, 3, 1]),
        helper.make_node("Conv3x3", ["rows", "taps", "taps_bias"], ["predicted"], domain="acwface"),
        helper.make_node(
            "DeformSample", ["predicted", "rows", "bias"], ["sampled"], domain="acwface", channels=CHANNELS, predicted_channels_last=1
        ),
        helper.make_node(
            "DeformConvTiled",
            ["predicted", "rows", "matrices", "bias"],
            ["mixed"],
            domain="acwface",
            channels=CHANNELS,
            predicted_channels_last=1,
            offset_limit=1.0,
        ),
        helper.make_node("Add", ["sampled", "mixed"], ["both"]),
        helper.make_node("ReduceMean", ["both", "axes"], ["mean"], keepdims=0),
    ]
    constants = {"taps": _fill(9, 3 * _REPEATS, 27), "taps_bias": _fill(27), "bias": _fill(CHANNELS)}
    constants |= {"matrices": _fill(9, 3 * _REPEATS, CHANNELS), "axes": np.array([2, 3])}
    for name, rest in OUTPUTS:
        constants |= {f"{name}_w": _fill(CHANNELS, *(rest or (1,))), f"{name}_shape": np.array((1, 1, *rest))}
        nodes += [
            helper.make_node("MatMul", ["mean", f"{name}_w"], [f"{name}_flat"]),
            helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]),
        ]
    # What is large is zeros, and given by an operator: a fuzzer should not spend its time on weights.
    for name in ("taps", "matrices"):
        constants.pop(name)
    shapes = {"taps": (9, 3 * _REPEATS, 27), "matrices": (9, 3 * _REPEATS, CHANNELS)}
    for name, shape in shapes.items():
        constants[f"{name}_of"] = np.array(shape)
        nodes.insert(0, helper.make_node("ConstantOfShape", [f"{name}_of"], [name]))
    graph = helper.make_graph(
        nodes,
        "seed",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, *rest)) for name, rest in OUTPUTS],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("acwface", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def peer_model() -> bytes:
    """Outputs as SCRFD has them for pictures of 32x32, all of the picture's mean."""
    nodes = [helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0)]
    constants, outputs = [], []
    for channels in (1, 4, 10):
        for stride in (8, 16, 32):
            shape, name = (2 * (32 // stride) ** 2, channels), f"out_{channels}_{stride}"
            constants.append(numpy_helper.from_array(np.array(shape), f"{name}_shape"))
            nodes.append(helper.make_node("Expand", ["mean", f"{name}_shape"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 32, 32))
    graph = helper.make_graph(nodes, "peer", [image], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def tflite_model() -> bytes:
    """The same, without Conv3x3."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, [schema.BufferT()], [], [graph]
    graph.tensors, graph.operators = [], []

    def tensor(name: str, shape: tuple[int, ...], values: np.ndarray | None = None) -> int:
        one = schema.TensorT()
        one.name, one.shape, one.buffer = name, list(shape), 0
        one.type = schema.TensorType.INT32 if values is not None and values.dtype == np.int32 else schema.TensorType.FLOAT32
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            one.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(one)
        return len(graph.tensors) - 1

    def operator(kind: int | str, inputs: list[int], output: int, options: object = None, options_type: int = 0) -> None:
        code, node = schema.OperatorCodeT(), schema.OperatorT()
        builtin = schema.BuiltinOperator.CUSTOM if isinstance(kind, str) else kind
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
        if isinstance(kind, str):
            code.customCode, node.customOptions = kind, np.frombuffer(options, np.uint8)
        else:
            node.builtinOptions, node.builtinOptionsType = options, options_type
        node.opcodeIndex, node.inputs, node.outputs = len(model.operatorCodes), inputs, [output]
        model.operatorCodes.append(code)
        graph.operators.append(node)

    builtin, kinds = schema.BuiltinOperator, schema.BuiltinOptions
    image, many = tensor("image", (1, SIDE, SIDE, 3)), tensor("many", (1, SIDE, SIDE, 3 * _REPEATS))
    join = schema.ConcatenationOptionsT()
    join.axis = 3
    operator(builtin.CONCATENATION, [image] * _REPEATS, many, join, kinds.ConcatenationOptions)
    sampled, bias = tensor("sampled", (1, SIDE, SIDE, CHANNELS)), tensor("bias", (CHANNELS,), _fill(CHANNELS))
    operator("DeformSample", [many, many, bias], sampled, struct.pack("<iiiiff", 1, 0, 0, CHANNELS, 1.0, 0.1))
    weight = tensor("matrices", (9, 2, CHANNELS), _fill(9, 2, CHANNELS))
    mixed = tensor("mixed", (1, SIDE, SIDE, CHANNELS))
    operator("DeformConvTiled", [many, many, weight, bias], mixed, struct.pack("<iiiiff", 1, 0, 0, CHANNELS, 0.0, 1.0))
    both = tensor("both", (1, SIDE, SIDE, CHANNELS))
    operator(builtin.ADD, [sampled, mixed], both, schema.AddOptionsT(), kinds.AddOptions)
    mean = tensor("mean", (1, CHANNELS))
    operator(builtin.MEAN, [both, tensor("axes", (2,), np.array([1, 2], np.int32))], mean, schema.ReducerOptionsT(), kinds.ReducerOptions)
    graph.inputs, graph.outputs = [image], []
    for name, rest in OUTPUTS:
        count = rest[0] if rest else 1
        flat, out = tensor(f"{name}_flat", (1, count)), tensor(name, (1, 1, *rest))
        linear = [mean, tensor(f"{name}_w", (count, CHANNELS), _fill(count, CHANNELS)), -1]
        operator(builtin.FULLY_CONNECTED, linear, flat, schema.FullyConnectedOptionsT(), kinds.FullyConnectedOptions)
        shape = tensor(f"{name}_shape", (2 + len(rest),), np.array((1, 1, *rest), np.int32))
        operator(builtin.RESHAPE, [flat, shape], out, schema.ReshapeOptionsT(), kinds.ReshapeOptions)
        graph.outputs.append(out)
    return pack_model(model)


def nodes() -> dict:
    """What the project's delegate reads of its nodes in :func:`tflite_model`: options, and tensors with types and shapes."""
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite_model(), 0)).subgraphs[0]
    return {
        "nodes": [
            {"options": list(struct.unpack("<iiii", node.customOptions[:16].tobytes())), "limit": 1.0, "slope": 0.1}
            | {"inputs": list(map(int, node.inputs)), "outputs": list(map(int, node.outputs))}
            for node in graph.operators
            if node.customOptions is not None
        ],
        "tensors": [{"type": tensor.type, "shape": list(map(int, tensor.shape))} for tensor in graph.tensors],
    }


def with_nodes(said: dict) -> bytes:
    """:func:`tflite_model` with what :func:`nodes` gives, or what has become of that."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite_model(), 0))
    graph = model.subgraphs[0]
    ours = [node for node in graph.operators if node.customOptions is not None]
    for node, changed in zip(ours, said["nodes"], strict=True):
        options = struct.pack("<iiiiff", *changed["options"], changed["limit"], changed["slope"])
        node.customOptions = np.frombuffer(options, np.uint8)
        node.inputs, node.outputs = changed["inputs"], changed["outputs"]
    touched = {index for node in ours for index in (*node.inputs, *node.outputs)}
    for index, changed in enumerate(said["tensors"]):
        if index in touched:
            graph.tensors[index].type, graph.tensors[index].shape = changed["type"], changed["shape"]
    return pack_model(model)


def coreml_package(folder: Path) -> Path:
    """A saved ML Program, with some of the operators that exports have."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, SIDE, SIDE))], opset_version=ct.target.iOS16)
    def program(image):  # noqa: ANN001, ANN202
        x = mb.conv(x=image, weight=_fill(CHANNELS, 3, 3, 3), pad_type="custom", pad=[1, 1, 1, 1])
        x = mb.leaky_relu(x=x, alpha=0.1)
        x = mb.reduce_mean(x=x, axes=[2, 3], keep_dims=False)
        outputs = []
        for name, rest in OUTPUTS:
            linear = mb.matmul(x=x, y=_fill(CHANNELS, *(rest or (1,))))
            outputs.append(mb.reshape(x=linear, shape=(1, 1, *rest), name=name))
        return tuple(outputs)

    inputs = [ct.ImageType("image", (1, 3, SIDE, SIDE), color_layout=ct.colorlayout.BGR)]
    model = ct.convert(program, inputs=inputs, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS16, skip_model_load=True)
    model.save(str(folder / "model.mlpackage"))
    return folder / "model.mlpackage"


@functools.cache
def safetensors_header() -> tuple[bytes, int]:
    """Of the smallest checkpoint that the zoo can have, and how many bytes of weights follow it."""
    config = msgspec.structs.replace(variant_config("retinaface"), channels=4)
    header, position = {}, 0
    header["__metadata__"] = {"checkpoint": json.dumps({"format": 1, "config": config.to_json(), "source": "seed"})}
    kinds = {torch.float32: "F32", torch.int64: "I64"}
    for name, tensor in Detector(config).state_dict().items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [position, position + size]}
        position += size
    return json.dumps(header).encode(), position


def public_state() -> dict[str, torch.Tensor]:
    """Every key of a public checkpoint; a single number stands for all of a tensor."""
    config = variant_config("retinaface")
    names = _public_names(config)
    tensors = Detector(config).state_dict().items()
    return {names[name]: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for name, tensor in tensors}


def pth_files() -> list[bytes]:
    """Archives and the older format: whole, a few keys, wrapped, hostile."""
    few = {"body.stage1.0.0.weight": torch.zeros(8, 3, 3, 3), "module.fpn.x": torch.zeros(2)}
    contents = [(few, {}), ({"state_dict": few, "epoch": 3}, {}), (few, {"_use_new_zipfile_serialization": False}), (Hostile(), {})]
    files = []
    for content, options in [*contents, (public_state(), {}), ([1, "a", None], {})]:
        file = io.BytesIO()
        torch.save(content, file, **options)
        files.append(file.getvalue())
    return [*files, pickle.dumps(Hostile())]


def pth_pickles() -> list[bytes]:
    """What is pickled in those that are archives."""
    return [archive.read("archive/data.pkl") for archive in map(_archive, pth_files()) if archive is not None]


def _archive(content: bytes) -> zipfile.ZipFile | None:
    return zipfile.ZipFile(io.BytesIO(content)) if content.startswith(b"PK") else None


class Hostile:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        import os

        return os.system, ("touch fuzzing-ran-this",)


RETINAFACE = (
    b"# 0--Parade/a.jpg\n10 20 30 40 12.0 25.0 0.0 33.5 25.1 0.0 22 33 0 14 50 1 31 50 1 0.8\n0 0 5 5\n# 0--Parade/b.jpg\n"
    b"# 1--Handshaking/c.jpg\n1 2 3 4 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1\n"
)
OFFICIAL = b"0--Parade/a.jpg\n2\n10 20 30 40 0 0 0 0 0 0 \n1 2 3 4 2 0 0 1 0 0 \n0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n"
IMAGE_LIST = b"0--Parade/a.jpg\n0--Parade/b.jpg\n"
PSEUDO = (
    b'{"teacher":"0","views":[[0.5,false]],"largest_view":4,"face_sides":[12.0,400.0],"same_face":0.5}\n'
    b'{"name":"0--Parade/a.jpg","labelled":true,"boxes":[[1.0,2.0,30.0,40.0]],"landmarks":[[[1,2],[3,4],[5,6],[7,8],[9,9]]],"scores":[0.9]}\n'
)
QUANTIZE_RECIPE = b'{"variant":"retinaface","dcn":"none","format":"onnx","method":"mse","kept":["a","b"]}'


def real_beginning(*parts: str) -> list[bytes]:
    """The first 2 kB of a file beside the project, if it is there."""
    path = DATA.joinpath(*parts)
    return [path.read_bytes()[:2048]] if path.is_file() else []


def ground_truth(compressed: bool) -> bytes:
    """One event, two images; of the layout of the official files."""

    def cells(*values: object) -> np.ndarray:
        column = np.empty((len(values), 1), object)
        for index, value in enumerate(values):
            column[index, 0] = value
        return column

    boxes = cells(cells(np.array([[10, 20, 30, 40], [1, 2, 3, 4]]), np.zeros((1, 4))))
    content = {"event_list": cells("0--Parade"), "file_list": cells(cells("a", "b")), "face_bbx_list": boxes}
    file = io.BytesIO()
    scipy.io.savemat(file, content | {"gt_list": cells(cells(np.array([[1]]), np.zeros((0, 1))))}, do_compression=compressed)
    return file.getvalue()


def images() -> list[bytes]:
    """A small picture in every common format, upright and not, in several modes."""
    picture = Image.fromarray((np.arange(16 * 12 * 3) % 251).astype(np.uint8).reshape(12, 16, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    for mode, format, options in (
        ("RGB", "JPEG", {"exif": exif}),
        ("RGB", "JPEG", {"progressive": True, "quality": 30}),
        ("CMYK", "JPEG", {}),
        ("L", "JPEG", {}),
        ("RGBA", "PNG", {"exif": exif}),
        ("P", "PNG", {}),
        ("I;16", "PNG", {}),
        ("RGB", "WEBP", {"exif": exif}),
        ("RGB", "BMP", {}),
        ("RGB", "GIF", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("F", "TIFF", {}),
        ("RGB", "PPM", {}),
        ("RGB", "JPEG2000", {}),
        ("RGB", "EPS", {}),
        ("RGBA", "ICO", {"sizes": [(16, 12)]}),
        ("RGB", "TGA", {}),
        ("RGB", "SGI", {}),
        ("RGB", "PCX", {}),
        ("RGB", "IM", {}),
    ):
        converted = picture.convert("L").convert("I;16") if mode == "I;16" else picture.convert(mode)
        file = io.BytesIO()
        try:
            converted.save(file, format, **options)
        except (OSError, KeyError):  # a Pillow without that codec
            continue
        files.append(file.getvalue())
    return files


def results() -> list[Result]:
    """A record with every field."""
    faces = Faces(((1.0, 2.0, 30.0, 40.0),), (0.9,))
    drift = Drift(
        0.5, 10, 1, Spread(0.9, 0.95, 0.8), Spread(0.01, 0.0, 0.1), Spread(1.0, 1.0, 2.0),
        (SizeDrift(0, 20, 3, 2, 1, 0), SizeDrift(20, None, 3, 2, 1, 0)), (ImageDrift("astronaut.png", 0.5, 1, 0),),
    )  # fmt: skip
    ap = SubsetAP(90.0, 80.0, None)
    return [
        Result(
            artifact="a-none-fp32-64-onnx", variant="retinaface", dcn="none", precision="fp32", format="onnx", weights="none",
            checkpoint="c",
            runtime="onnxruntime", runtime_version="1.26.0", device=device, machine="m", threads=1, size_bytes=1000, load_ms=1.0,
            latency_ms=Latency(10.0, 11.0, 12.0, 9.0, 50, 10, 9.5, 5, 1.0), latency_input=(64, 64), peak_memory_bytes=1000,
            protocol="letterbox-64x64", dataset="d", images=20, failed_images=("x.jpg",), image_ms=ImageTimes(1.0, 2.0), ap=ap,
            ap_reference=ap, drop=SubsetAP(1.0, 1.0, None), drop_interval=SubsetInterval((0.8, 1.2), (0.5, 1.5), None), drift=drift,
            curves=(Curve("easy", (0.0, 0.5, 1.0), (1.0, 0.9, 0.1)),), examples=(Example("astronaut.png", faces, faces),),
            device_drift=DeviceDrift("m", 1e-6, 1e-4, 1e-4, drift) if device != "local" else None, first_run_ms=12.0, images_per_s=99.0,
            roofline=Roofline(Peak(100.0, 20.0), 10**9, 10**6, 5.0), dataset_digest="0", inputs="1",
        )
        for device in ("local", "qemu:cortex-a53")
    ]  # fmt: skip
