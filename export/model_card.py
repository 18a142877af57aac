"""``MODEL_CARD.md``: what somebody who finds the folder needs to know."""

from __future__ import annotations

from model.artifact import MANIFEST, REFERENCE, Manifest


def model_card(name: str, manifest: Manifest) -> str:
    """Markdown."""
    size = f"{manifest.input.size[0]}x{manifest.input.size[1]}" if manifest.input.size else "any"
    parity = manifest.parity
    landmarks = any(output.meaning == "landmark_deltas" for output in manifest.outputs)
    return f"""# {name}

A face detector: {found(landmarks)}.

| | |
|---|---|
| network | {manifest.variant} |
| weights | {manifest.weights} |
| deformable convolutions | {manifest.dcn} |
| format, precision | {manifest.format}, {manifest.precision} |
| input | {size} pixels (height x width), {manifest.input.colour_order}, mean {", ".join(f"{value:g}" for value in manifest.input.mean)} |
| runs on | {"Core ML of iOS" if manifest.runtime.name == "coreml" else manifest.runtime.name} {manifest.runtime.minimum_version} or newer |
| size | {manifest.model.size_bytes:,} bytes |

Largest difference from the FP32 torch model over {parity.anchors:,} anchors of {parity.photographs} photographs:
scores {parity.scores:.1e}, boxes {parity.boxes_px:.1e} px{f", landmarks {parity.landmarks_px:.1e} px" if landmarks else ""}.

`{MANIFEST}` says how to feed `{manifest.model.name}` and how to read its outputs.
`{REFERENCE}` is the FP32 checkpoint that it was made from; only measuring drift needs it.

    python -m runtime_bench detect {name} PHOTO.jpg
    python -m runtime_bench run {name} --wider WIDER_FACE_ROOT
"""


def found(landmarks: bool) -> str:
    """What a detector gives, in words."""
    return "boxes, scores and five landmarks" if landmarks else "boxes and scores"
