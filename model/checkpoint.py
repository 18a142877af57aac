"""Checkpoints: weights and the configuration that they belong to, in one safetensors file.

Foreign PyTorch checkpoints come in through :func:`load_checkpoint` too, from the public layouts: RetinaFace
(``body.``, ``fpn.``, ``ssh1.``, ``ClassHead.0.conv1x1.``), ACWFace (``wfpn.``, ``scm.0.``, ``edam_backbone.0.``, and
``offset_conv`` / ``modulator_conv`` / ``regular_conv`` in deformable layers) and BiRetina (``bifpn.0.conv4_up.``).
"""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.config import VARIANTS, ModelConfig, variant_config
from model.detector import Detector, build_detector
from model.errors import UserError
from model.files import atomic_file
from model.necks import NECKS

_HEADER = "checkpoint"
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    detector: Detector
    """In eval mode, float32, on the CPU."""
    source: str
    """Where the weights come from, in words; travels with them."""


def save_checkpoint(detector: Detector, path: Path, source: str) -> None:
    """Write weights and configuration; the same weights give the same bytes.

    Args:
        detector: what to save.
        path: ends in ``.safetensors``.
        source: where the weights come from, one line.
    """
    state = {name: tensor.detach().contiguous().cpu() for name, tensor in detector.state_dict().items()}
    header = json.dumps({"format": _FORMAT, "config": detector.config.to_json(), "source": source})
    with atomic_file(path) as temporary:
        try:
            save_file(state, temporary, metadata={_HEADER: header})  # one entry only: safetensors writes several in random order
        except SafetensorError as error:
            raise UserError(f"{path} cannot be written: {error}") from None


def load_checkpoint(path: Path, variant: str | None = None) -> Checkpoint:
    """Read a checkpoint of ours, or of one of the public layouts.

    Args:
        path: a safetensors file of ours; anything else is read by ``torch.load(weights_only=True)``.
        variant: the variant it must be, ``None`` to take what it is.

    Raises:
        UserError: the file is missing, damaged, wants to run code, is of another variant, or has an unknown, missing or wrongly shaped
            key or a value that is not finite.
    """
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}")
    if path.suffix == ".safetensors":
        config, state, source = _read_own(path)
        names = {name: name for name in _skeleton(config)}
    else:
        state = _strip(_read_pickle(path), path)
        config = _recognise(state, path)
        names = _public_names(config)
        state = {name: tensor for name, tensor in state.items() if not _never_read(name)}
        source = f"imported from {path.name}"
    if variant is not None and config.variant != variant:
        raise UserError(f"{path} holds a {config.variant} checkpoint, not {variant}; pass --variant {config.variant} or another checkpoint")
    _check(config, state, names, path)
    detector = Detector(config).eval()
    detector.load_state_dict({own: state[name] for own, name in names.items()})
    return Checkpoint(detector, source)


def default_checkpoint(variant: str) -> Checkpoint:
    """The weights that the project ships for a variant, or seeded random ones where it has none (``source`` says which)."""
    shipped = Path(__file__).parent / "weights" / f"{variant}.safetensors"
    if shipped.is_file():
        return load_checkpoint(shipped, variant)
    return Checkpoint(build_detector(variant_config(variant), seed=0), "untrained: random weights, seed 0")


def _read_own(path: Path) -> tuple[ModelConfig, dict[str, Tensor], str]:
    path.open("rb").close()  # of a file that may not be read safetensors says that there is none
    try:
        with safe_open(path, framework="pt") as file:
            try:
                header = json.loads((file.metadata() or {})[_HEADER])
                layout, config_json, source = header["format"], header["config"], header["source"]
            except (KeyError, TypeError, ValueError, RecursionError):
                raise UserError(
                    f"{path} is a safetensors file but no checkpoint of this project; convert its .pth with python -m model convert"
                ) from None
            if layout != _FORMAT:
                raise UserError(f"{path} is a checkpoint of format {layout}, this version reads format {_FORMAT}; update the project")
            if not isinstance(config_json, str):
                raise UserError(f"{path}: its header holds no configuration; it was not written by this project")
            return ModelConfig.from_json(config_json), {name: file.get_tensor(name) for name in file.keys()}, str(source)  # noqa: SIM118
    except (SafetensorError, TypeError, ValueError, RuntimeError) as error:  # of types that torch does not have, too
        raise UserError(f"{path} is not a whole safetensors file ({error}); copy it again") from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise UserError(
                f"{path} wants to run code when loaded, refused; save a plain state_dict with torch.save and pass that"
            ) from None
        raise UserError(f"{path} is not a PyTorch checkpoint; pass a .pth state_dict or a .safetensors file of this project") from None
    except Exception as error:  # torch raises whatever its readers of three formats stumble over
        raise UserError(
            f"{path} is not a whole PyTorch checkpoint ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if (
        not isinstance(loaded, dict)
        or not loaded
        or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in loaded.items())
    ):
        raise UserError(f"{path} holds no state_dict (names and tensors); save model.state_dict() with torch.save and pass that")
    return loaded


def _strip(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Without DataParallel's prefix, without the counters that thop leaves in a profiled model."""
    stripped = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if len(stripped) != len(state):
        raise UserError(f"{path} has the same key with and without the prefix 'module.'; keep one of the two")
    return {name: tensor for name, tensor in stripped.items() if name.rpartition(".")[2] not in ("total_ops", "total_params")}


def _recognise(state: dict[str, Tensor], path: Path) -> ModelConfig:
    """The zoo's variant that a foreign state dict belongs to, by the modules that its keys name."""

    def has(*fragments: str) -> bool:
        return any(fragment in f".{name}" for name in state for fragment in fragments)

    necks = [neck for neck in NECKS if has(f".{neck}.")]
    if not has(".body.") or len(necks) != 1:
        first = next(iter(state))
        wanted = "body.* and one of fpn.*, wfpn.*, bifpn.*"
        raise UserError(f"{path} is of no known layout ({wanted} expected, found {first!r} and {len(state) - 1} others)")
    body = next(name for name in state if name.startswith("body."))
    found = (has(".scm."), has(".edam_backbone."), has(".offset_conv."), has(".LandmarkHead."))
    for config in VARIANTS.values():
        parts = (config.context != "ssh", config.attention == "edam", bool(config.deform), config.landmarks)
        if necks == [config.neck] and found == parts and _has_backbone(state, config):
            return config
    names = [body, *necks, *(name for name, there in zip(("scm", "edam", "deformable", "landmarks"), found, strict=True) if there)]
    raise UserError(f"{path} combines modules as no variant does ({', '.join(names)}); known: {', '.join(VARIANTS)}")


def _has_backbone(state: dict[str, Tensor], config: ModelConfig) -> bool:
    """Whether ``body.*`` looks like a configuration's backbone: by the shapes of a few layers that tell them apart."""
    shapes = {
        "mobilenetv1_025": {"stage3.1.3.weight": (256, 256, 1, 1)},
        "mobilenetv2": {"stage1.0.expand.0.weight": (128, 64, 1, 1)},
        "mobilenetv2_x6": {"stage1.0.expand.0.weight": (384, 64, 1, 1)},
        "resnet50": {"layer4.2.conv3.weight": (2048, 512, 1, 1)},
    }[config.backbone]
    return all(f"body.{name}" in state and tuple(state[f"body.{name}"].shape) == shape for name, shape in shapes.items())


_PUBLIC_CONTEXT = {
    "branch1": "conv3X3",
    "hidden2": "conv5X5_1",
    "branch2": "conv5X5_2",
    "hidden3": "conv7X7_2",
    "branch3": "conv7x7_3",
    "hidden4": "ecm_1",
    "branch4": "ecm_2",
    "fusion.0": "shuffle_conv",
    "fusion.1": "shuffle_bn",
}
_PUBLIC_LATERALS = ("p3_down_channel", "p4_down_channel", "p5_down_channel", "p4_down_channel_2", "p5_down_channel_2")
_PUBLIC_CELL = {
    "hidden": ("conv4_up", "p4_w1"),
    "fine": ("conv3_up", "p3_w1"),
    "middle": ("conv4_down", "p4_w2"),
    "coarse": ("conv7_down", "p7_w2"),
}
"""BiFPN's convolution and shares; their numbers are of EfficientDet's five levels."""
_PUBLIC_MERGE = {"depthwise": "depthwise_conv.conv", "pointwise": "pointwise_conv.conv", "norm": "bn"}
_UNREAD = re.compile(r"bifpn\.\d+\.(conv6_up|conv5_up|conv5_down|conv6_down|p6_w1|p5_w1|p5_w2|p6_w2|p5_to_p6)(\.|$)")


def _never_read(name: str) -> bool:
    """Whether a public key is of a layer that its network makes and never uses: BiFPN's, for levels that are not there."""
    return _UNREAD.match(name) is not None


def _public_names(config: ModelConfig) -> dict[str, str]:
    """Every key of our state dict with its name in the public layout of the same network."""
    names = list(_skeleton(config))
    deformable = {name.removesuffix("offset_conv.weight") for name in names if name.endswith("offset_conv.weight")}
    return {name: _public_name(name, config, deformable) for name in names}


def _public_name(name: str, config: ModelConfig, deformable: set[str]) -> str:
    layer, _, leaf = name.rpartition(".")
    if f"{layer}." in deformable:  # our deformable layer owns its weight, the public one wraps a convolution
        name = f"{layer}.regular_conv.{leaf}"
    room, level, rest = name.split(".", 2)
    if room == "backbone":
        return f"body.{level}.{rest}"
    if room == "neck" and config.neck == "bifpn":
        return _public_bifpn_name(name)
    if room == "neck":  # here "level" is the kind of layer
        kind, (level, rest) = level, rest.split(".", 1)
        if kind == "laterals":
            return f"{config.neck}.output{int(level) + 1}.{rest}"
        # The two layouts number these from opposite ends: fpn.merge1 is the finest level's, wfpn.merge1 the middle one's.
        number = int(level) + 1 if config.neck == "fpn" else 2 - int(level)
        return f"{config.neck}.{'merge' if kind == 'merges' else 'alpha_conv'}{number}.{rest}"
    if room == "context":
        for own, public in _PUBLIC_CONTEXT.items():
            if rest.startswith(f"{own}."):
                rest = f"{public}.{rest.removeprefix(f'{own}.')}"
                break
        return f"scm.{level}.{rest}" if config.context == "scm" else f"ssh{int(level) + 1}.{rest}"
    if room.endswith("_attention"):
        place = {"backbone": "backbone", "neck": "wfpn", "context": "scm"}[room.removesuffix("_attention")]
        return f"edam_{place}.{level}.{rest.replace('channel.conv', 'ca.conv1d').replace('spatial.conv', 'sa.conv')}"
    head = {"class_heads": "ClassHead", "box_heads": "BboxHead", "landmark_heads": "LandmarkHead"}[room]
    return f"{head}.{level}.conv1x1.{rest}"


def _public_bifpn_name(name: str) -> str:
    _, kind, number, rest = name.split(".", 3)
    if kind == "laterals":
        layer, leaf = rest.split(".")
        return f"bifpn.0.{_PUBLIC_LATERALS[int(number)]}.{'0.conv' if layer == '0' else layer}.{leaf}"
    merge, part, *leaf = rest.split(".")
    conv, shares = _PUBLIC_CELL[merge]
    return ".".join((f"bifpn.{number}", shares) if part == "weights" else (f"bifpn.{number}.{conv}", _PUBLIC_MERGE[part], *leaf))


def _skeleton(config: ModelConfig) -> dict[str, Tensor]:
    """Names and shapes of a network's weights, without any: a configuration of a few bytes may ask for gigabytes."""
    with torch.device("meta"):
        return Detector(config).state_dict()


def _check(config: ModelConfig, state: dict[str, Tensor], names: dict[str, str], path: Path) -> None:
    """Whether ``state``, whose keys are the values of ``names``, fits; errors speak in those, the words of the file."""
    variant = config.variant
    expected = {names[name]: tensor for name, tensor in _skeleton(config).items()}
    for name in expected:
        if name.endswith("num_batches_tracked"):  # torch before 0.4.1 did not write it; inference does not read it
            state.setdefault(name, torch.tensor(0))
    if unknown := sorted(set(state) - set(expected)):
        raise UserError(f"{path}: unknown key {unknown[0]!r}{_and_more(unknown)} for {variant}")
    if missing := sorted(set(expected) - set(state)):
        raise UserError(f"{path}: key {missing[0]!r}{_and_more(missing)} of {variant} is missing")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise UserError(f"{path}: key {name!r} has shape {tuple(tensor.shape)}, {variant} needs {tuple(expected[name].shape)}")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            raise UserError(f"{path}: key {name!r} is no dense tensor of real numbers; save the float model's state_dict and pass that")
        if not torch.isfinite(tensor.to(expected[name].dtype)).all():
            raise UserError(f"{path}: key {name!r} has a value that is not finite; the training that wrote it has failed")


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
