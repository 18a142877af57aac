"""Exact rewrites: the function of a network (up to rounding) in a form that runtimes execute faster.

Each is a pass over the torch model, named in :data:`REWRITES`; :func:`apply_rewrites` runs them on a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection

from export.rewrites.deform import fold_norm, merge_predictions, mix_then_sample, use_route
from export.rewrites.heads import DeployModel, merge_heads
from export.rewrites.split_attention import split_attention
from model.detector import Detector
from model.errors import UserError

REWRITES: dict[str, Callable[[DeployModel], None]] = {
    "split-attention": split_attention,
    "merge-predictions": merge_predictions,
    "fold-norm": fold_norm,
    "mix-then-sample": mix_then_sample,
    "merge-heads": merge_heads,
}
"""By name, in the order in which they are applied. Each changes its model in place. Batch norm behind ordinary convolutions is left to
onnxsim, which folds it."""


def apply_rewrites(detector: Detector, route: str, without: Collection[str] = ()) -> DeployModel:
    """The network as it is exported.

    Args:
        detector: left as it is.
        route: of its deformable layers, a key of :data:`export.deform_routes.ROUTES`, or ``none``.
        without: names of rewrites to leave out.

    Raises:
        UserError: ``route`` is ``custom`` and a rewrite that its operator is made for is left out.
    """
    if route == "custom" and (needed := {"mix-then-sample", "merge-predictions"} & set(without)):
        raise UserError(f"--dcn custom is made of the rewrite {min(needed)}; leave --no-rewrite {min(needed)} out or take --dcn native")
    model = DeployModel(copy.deepcopy(detector).eval()).eval()
    use_route(model, route)
    for name, rewrite in REWRITES.items():
        if name not in without:
            rewrite(model)
    return model
