"""From a photograph to the network's input, the same way for every runtime."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct
from PIL import Image, ImageOps, UnidentifiedImageError

from model.errors import UserError

MAX_ORIGINAL_PIXELS = 48_000_000
"""Largest photograph that is run at its own size: the activations take roughly 130 bytes a pixel."""


_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
"""What photographs come in; phones' multi-picture files are JPEG to Pillow. It knows many more, and starts Ghostscript for one of them."""


class InputSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How pixels become numbers. Part of ``detector.json``."""

    mean: tuple[float, float, float] = (104.0, 117.0, 123.0)
    """Subtracted from the 0 to 255 values, in :attr:`colour_order`; also the colour of the letterbox's border, which so becomes 0."""
    scale: Annotated[float, Meta(gt=0)] = 1.0
    """Multiplied in after the mean."""
    colour_order: Literal["BGR", "RGB"] = "BGR"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    """Order in memory: planes, or pixels."""


@dataclass(frozen=True)
class NetworkInput:
    """One photograph, ready to run, and the way back to its own pixels."""

    tensor: np.ndarray
    """``(1, 3, H, W)`` float32; in memory as :attr:`InputSpec.layout` has it."""
    scale_x: float
    scale_y: float
    """Pixels of the network's input for one pixel of the photograph. The photograph's origin is the input's origin."""


def load_image(path: str | Path) -> np.ndarray:
    """Read a photograph as ``(H, W, 3)`` uint8 RGB, upright (EXIF orientation applied), whatever its mode.

    Sixteen-bit grey keeps its upper eight bits, alpha is dropped, CMYK goes through Pillow's conversion.

    Raises:
        UserError: no such file, not an image, cut short, or too large to decode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                image = ImageOps.exif_transpose(image)
                if image.mode.startswith("I"):  # 16-bit grey; convert("RGB") would clip at 255
                    image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
                return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"no such photograph: {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name the photographs in it") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image of a known format ({', '.join(_FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{path} has more than {Image.MAX_IMAGE_PIXELS // 10**6} megapixels; scale it down first") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it") from None
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise UserError(f"{path} cannot be decoded ({error}); it may be cut short, copy it again") from None


def prepare(image: np.ndarray, spec: InputSpec, size: tuple[int, int] | None = None) -> NetworkInput:
    """Make the network's input.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        spec: mean, scale, colour order and order in memory.
        size: (height, width) to letterbox into: the photograph is resized to the largest size that fits with its aspect ratio kept
            (Pillow's antialiased bilinear filter), put into the upper left corner, and the rest filled with the mean colour.
            ``None`` keeps the photograph's own size.

    Raises:
        UserError: ``size`` is ``None`` and the photograph is larger than :data:`MAX_ORIGINAL_PIXELS`.
    """
    height, width = image.shape[:2]
    if size is None:
        if height * width > MAX_ORIGINAL_PIXELS:
            raise UserError(
                f"photograph of {width}x{height} is too large to run at its own size (limit {MAX_ORIGINAL_PIXELS // 10**6} megapixels); "
                "use a fixed input size"
            )
        return NetworkInput(_normalise(image, spec)[None], 1.0, 1.0)
    ratio = min(size[0] / height, size[1] / width)
    new_height, new_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    if (new_height, new_width) != (height, width):
        image = np.asarray(Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR))
    tensor = np.zeros((1, 3, *size), np.float32) if spec.layout == "NCHW" else np.zeros((1, *size, 3), np.float32).transpose(0, 3, 1, 2)
    tensor[0, :, :new_height, :new_width] = _normalise(image, spec)
    return NetworkInput(tensor, new_width / width, new_height / height)


def in_layout(tensor: np.ndarray, layout: str) -> np.ndarray:
    """``(1, 3, H, W)`` with the same values, in memory as ``layout`` has it; no copy where it is already."""
    if layout == "NCHW":
        return np.ascontiguousarray(tensor)
    return np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _normalise(image: np.ndarray, spec: InputSpec) -> np.ndarray:
    """``(H, W, 3)`` uint8 RGB to ``(3, H, W)`` float32."""
    channels = image[..., ::-1] if spec.colour_order == "BGR" else image
    mean = np.asarray(spec.mean, np.float32)
    # Bytes are turned before they become floats, and whole rows or planes are subtracted from: several times faster.
    if spec.layout == "NHWC":
        height, width = image.shape[:2]
        rows = np.ascontiguousarray(channels).astype(np.float32).reshape(height, 3 * width)
        rows -= np.tile(mean, width)
        values = np.moveaxis(rows.reshape(height, width, 3), -1, 0)
    else:
        values = np.ascontiguousarray(np.moveaxis(channels, -1, 0)).astype(np.float32)
        values -= mean[:, None, None]
    values *= np.float32(spec.scale)
    return values
