"""What a TFLite file says about itself: the metadata that Android Studio and LiteRT's tools show.

The schema (tflite-support's ``metadata_schema.fbs``) knows no colour order but RGB, so nothing here claims that the input is an image:
the order is in its description, and ``detector.json`` is what programs should read. The package that writes such metadata ends at
Python 3.11; the tables are few enough to be written as what they are, field numbers and values.
"""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers

from export.package import INPUT_DESCRIPTION, LICENCE, OUTPUT_DESCRIPTIONS, outputs_of
from model.config import ModelConfig

METADATA = "TFLITE_METADATA"
"""Name of the entry in a model's list of metadata."""
IDENTIFIER = b"M001"
_PARSER = "1.0.0"
"""Oldest version of the schema that has all the fields."""
_NORMALIZATION = 1
"""Of the union ``ProcessUnitOptions``."""


def metadata(config: ModelConfig, title: str, description: str, version: str) -> bytes:
    """The flatbuffer of a detector.

    Args:
        config: says what goes in.
        title: of the model.
        description: where its weights come from.
        version: of the weights.
    """
    builder = flatbuffers.Builder(1024)

    def text(value: str) -> int:
        return builder.CreateString(value)

    def table(fields: dict[int, int], union: int | None = None) -> int:
        """``fields``: offsets by number; ``union``: the kind of the one in field 1, which is a union's."""
        builder.StartObject(8)
        if union is not None:
            builder.PrependUint8Slot(0, union, 0)
        for number, offset in fields.items():
            builder.PrependUOffsetTRelativeSlot(number, offset, 0)
        return builder.EndObject()

    def listed(offsets: Sequence[int]) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def numbers(values: Sequence[float]) -> int:
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependFloat32(value)
        return builder.EndVector()

    normalization = table({0: numbers(config.mean), 1: numbers([1.0] * len(config.mean))})
    image = table(
        {
            0: text("image"),
            1: text(f"{INPUT_DESCRIPTION}. float32, channels {config.colour_order}: 0 to 255 less the mean"),
            4: listed([table({1: normalization}, union=_NORMALIZATION)]),
        }
    )
    outputs = [table({0: text(name), 1: text(OUTPUT_DESCRIPTIONS[name])}) for name in outputs_of(config)]
    graph = table({2: listed([image]), 3: listed(outputs)})
    model = table(
        {0: text(title), 1: text(description), 2: text(version), 3: listed([graph]), 5: text(LICENCE), 7: text(_PARSER)},
    )
    builder.Finish(model, IDENTIFIER)
    return bytes(builder.Output())
