"""Recipes: what stays in float, and how ranges are found. ``python -m quantize sensitivity`` writes them."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from model.errors import UserError
from quantize.calibration import METHODS


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """JSON of the same fields."""

    variant: str
    dcn: str
    format: str
    method: str
    """One of :data:`quantize.calibration.METHODS`."""
    kept: tuple[str, ...]
    """Layers that stay in float, by the names that the format's converter gives them."""


def read_recipe(path: Path) -> Recipe:
    """Raises a :class:`UserError` where there is none, or one that is not understood."""
    try:
        recipe = msgspec.json.decode(path.read_bytes(), type=Recipe)
    except FileNotFoundError:
        raise UserError(f"no recipe {path}; write one with: python -m quantize sensitivity") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is no recipe: {error}") from None
    if recipe.method not in METHODS:
        raise UserError(f"{path}: no method {recipe.method!r}; there are {', '.join(METHODS)}")
    return recipe
