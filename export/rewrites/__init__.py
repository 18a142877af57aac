"""Exact rewrites: the function of a network (up to rounding) in a form that runtimes execute faster.

Each is a pass over the torch model, named in :data:`REWRITES`; :func:`apply_rewrites` runs them on a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping

from export.deform_routes import ROUTES, Route
from export.rewrites.attention import block_attention, pool_channels, split_attention
from export.rewrites.deform import fold_norm, merge_predictions, mix_then_sample, sample_in_parts, use_route
from export.rewrites.heads import DeployModel, merge_heads
from export.rewrites.neck import weigh_then_upsample
from model.detector import Detector

Rewrite = Callable[[DeployModel], None]
REWRITES: dict[str, Rewrite] = {
    "split-attention": split_attention,
    "pool-channels": pool_channels,
    "weigh-then-upsample": weigh_then_upsample,
    "merge-predictions": merge_predictions,
    "fold-norm": fold_norm,
    "mix-then-sample": mix_then_sample,
    "sample-in-parts": sample_in_parts,
    "merge-heads": merge_heads,
}
"""By name, in the order in which they are applied. Each changes its model in place. Batch norm behind ordinary convolutions is left to
onnxsim, which folds it."""


MOBILE_REWRITES = {name: rewrite for name, rewrite in REWRITES.items() if name != "pool-channels"} | {"split-attention": block_attention}
"""For LiteRT and Core ML. What makes a phone faster only a phone can say: these make operators fewer, or such as Neural Engines are
reported to take, four axes and kernels of at most 13 pixels (https://ane-guide.readthedocs.io/en/latest/part-5-practice/17-model-design-rules.html)."""


def apply_rewrites(
    detector: Detector,
    route: str,
    without: Collection[str] = (),
    routes: Mapping[str, Route] = ROUTES,
    rewrites: Mapping[str, Rewrite] = REWRITES,
) -> DeployModel:
    """The network as it is exported.

    Args:
        detector: left as it is.
        route: of its deformable layers, a key of ``routes``, or ``none``.
        without: names of rewrites to leave out.
        routes: of the format.
        rewrites: of the format, by name.
    """
    model = DeployModel(copy.deepcopy(detector).eval()).eval()
    if route != "none":
        use_route(model, routes[route])
    for name, rewrite in rewrites.items():
        if name not in without:
            rewrite(model)
    return model
