"""Exchanging modules of a network."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def replace_modules[M: nn.Module](model: nn.Module, kind: type[M], make: Callable[[M], nn.Module]) -> None:
    """Put ``make(module)`` in the place of every ``module`` of ``kind`` in ``model``."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make(child))
