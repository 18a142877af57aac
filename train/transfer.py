"""Transplanting: what a poorer variant knows becomes the starting point of a richer one.

Four steps, each optional after the first:

1. :func:`transplant` moves weights so that the function is kept as far as the architectures allow. A fresh deformable layer (offsets 0,
   mask 1) is the ordinary convolution; a fresh EDAM multiplies by a constant and a fresh WFPN halves the sum, which the next
   convolutions take back; the branches of SSH become those of SCM, whose fusion starts as the identity.
2. :func:`fit_neck` teaches a BiFPN, which inherits its 1x1 convolutions only, what the source's pyramid computes.
3. :func:`fit_context` fits by least squares what does not fit: SSH's first branch has 32 channels, SCM's has 16.
4. Training, with the source network as the teacher.

The other way, :func:`slim` starts a lighter network from a richer one, as near to it as its parts allow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from model.attention import EDAM
from model.config import ModelConfig
from model.context import SCM, SSH, SharedSCM
from model.deform_conv import DeformConv2d
from model.detector import Detector
from model.errors import UserError

EDAM_GAIN = 1 + 0.5 / (1 + math.exp(-1))
"""What an EDAM whose convolutions are zero multiplies by: ``1 + sigmoid(1) * sigmoid(0)``."""
_RIDGE = 1e-3
"""Weight of the least-squares penalty, relative to the features' mean variance."""
_NECK_RATE = 0.03
"""Of :func:`fit_neck`'s AdamW."""


def transplant(source: Detector, config: ModelConfig) -> Detector:
    """A network of ``config`` that starts from what ``source`` computes.

    The same function, up to rounding, where ``config`` only adds EDAM, WFPN, deformable layers or an offset limit, or has SCM's fusion
    dense instead of depthwise; the same boxes and landmarks where it has other anchor sides, as many a cell. From SSH to SCM half the
    channels of the first branch, those that the heads listen to most, are kept. A fusion that was dense and is to be depthwise starts as
    the identity. A BiFPN inherits 1x1 convolutions from another neck and nothing else.

    Raises:
        UserError: the two read other inputs or code boxes differently, or ``source`` has parts that ``config`` lacks.
    """
    old = source.config
    if "scm_shared" in (config.context, old.context) and old.context != config.context:
        raise UserError(f"cannot start {config.variant} from {old.variant}: it is acwface_dcn made lighter; start from that")
    alike = ("backbone", "channels", "merge_rank", "attention_rank", "strides", "anchors_per_cell", "variances", "mean", "colour_order")
    _check_alike(old, config, *alike)
    if (
        (old.neck != config.neck and (config.neck == "fpn" or old.neck == "bifpn"))
        or (old.context, config.context) == ("scm", "ssh")
        or (old.attention, config.attention) == ("edam", "none")
    ):
        raise UserError(f"cannot start {config.variant} from {old.variant}, which is the richer network; start from a poorer one")
    if set(old.deform) - set(config.deform) or (old.deform and set(old.deform_levels) - set(config.deform_levels)):
        raise UserError(f"cannot start {config.variant} from {old.variant}, whose deformable layers it lacks; start from a poorer one")

    target = Detector(config)
    with torch.no_grad():
        for module in target.modules():
            if isinstance(module, EDAM):
                _silence(module)
        _copy_state(source, target)
        if old.neck == "fpn" and config.neck == "wfpn":
            for alpha in target.neck.alphas:  # alpha = 1/2 everywhere, so the merge sees half the sum
                _silence(alpha)
            for merge in target.neck.merges:
                merge[0].weight.mul_(2)
        if old.neck != "bifpn" and config.neck == "bifpn":
            _inherit_laterals(source, target)
        if old.context != config.context:
            for level, (ssh, scm) in enumerate(zip(source.context, target.context, strict=True)):
                _ssh_to_scm(ssh, scm, target, level, _importance(source, level))
        elif old.context_fusion != config.context_fusion:
            for mine, theirs in zip(target.context, source.context, strict=True):
                if config.context_fusion == "dense":
                    _densify(theirs.fusion[0].weight, mine.fusion[0].weight)
                else:
                    _identity_fusion(mine)
        if old.attention == "none" and config.attention == "edam":
            _undo_gain(target)
        _change_anchors(target, old.min_sizes)
    return target.eval()


def _check_alike(old: ModelConfig, new: ModelConfig, *fields: str) -> None:
    for field in fields:
        if getattr(old, field) != getattr(new, field):
            raise UserError(f"cannot start {new.variant} from {old.variant}: {field} is {getattr(old, field)}, not {getattr(new, field)}")


def _copy_state(source: Detector, target: Detector) -> None:
    """Copy every tensor that both have under the same name, or under the name that a layer has when it becomes deformable."""
    own = target.state_dict()
    taken = {}
    for name, tensor in source.state_dict().items():
        if name in own and own[name].shape == tensor.shape:
            taken[name] = tensor
    target.load_state_dict(own | taken)


def _silence(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def _identity_fusion(scm: SCM) -> None:
    conv, norm = scm.fusion[0], scm.fusion[1]
    nn.init.zeros_(conv.weight)
    for channel in range(conv.out_channels):
        conv.weight[channel, 0 if conv.groups > 1 else channel, 1, 1] = 1
    _identity_norm(norm)


def _densify(depthwise: Tensor, dense: Tensor) -> None:
    """The same convolution, ``(C, 1, 3, 3)`` written into ``(C, C, 3, 3)``."""
    dense.zero_()
    channels = torch.arange(len(dense))
    dense[channels, channels] = depthwise[:, 0]


def _identity_norm(norm: nn.BatchNorm2d) -> None:
    norm.reset_running_stats()
    norm.running_var.fill_(1 - norm.eps)
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)


def _inherit_laterals(source: Detector, target: Detector) -> None:
    for lateral, own in zip((*source.neck.laterals, *source.neck.laterals[1:]), target.neck.laterals, strict=True):
        conv, norm = lateral[0], lateral[1]
        own[0].weight.copy_(conv.weight)
        nn.init.zeros_(own[0].bias)
        own[1].load_state_dict(norm.state_dict())
        own[1].weight.mul_(((norm.running_var + own[1].eps) / (norm.running_var + norm.eps)).sqrt())


def _importance(source: Detector, level: int) -> Tensor:
    """How much the heads listen to each channel of a context module's first branch: head weights times the channel's spread."""
    norm = source.context[level].branch1[1]
    loudness = sum(head.weight.flatten(1).square().mean(0) for head in (heads[level] for heads in source.heads))[: norm.num_features]
    return loudness * norm.weight.square()


def _ssh_to_scm(ssh: SSH, scm: SCM, target: Detector, level: int, importance: Tensor) -> None:
    quarter = scm.branch1[1].num_features
    chosen = importance.argsort(descending=True)[:quarter].sort().values
    for name, tensor in ssh.branch1.state_dict().items():
        scm.branch1.state_dict()[name].copy_(tensor[chosen] if tensor.dim() else tensor)
    # branch2 and branch3 have kept their names and shapes; hidden4 and branch4 pass hidden3 on, and no head listens yet.
    for part in (scm.hidden4, scm.branch4):
        weight = part[0].weight
        nn.init.kaiming_normal_(weight, a=1)
        weight.mul_(0.1)
        for channel in range(quarter):
            weight[channel, channel, 1, 1] += 1
        _identity_norm(part[1])
    _identity_fusion(scm)
    # Channels of SSH: 32 + 16 + 16. Of SCM: 16 of those 32, 16, 16, and 16 new ones.
    half = ssh.branch1[1].num_features
    inherited = torch.cat([chosen, torch.arange(half, half + 2 * quarter)])
    for heads in target.heads:
        weight = heads[level].weight
        kept = weight[:, inherited].clone()
        weight.zero_()
        weight[:, : len(inherited)] = kept


def _undo_gain(target: Detector) -> None:
    """Divide what reads an EDAM's output by the constant that a silent EDAM multiplies by."""
    for lateral in target.neck.laterals:
        lateral[0].weight.div_(EDAM_GAIN)
    for context in target.context:
        for part in (context.branch1, context.hidden2):
            part[0].weight.div_(EDAM_GAIN)
            if isinstance(part[0], DeformConv2d):
                part[0].offset_conv.weight.div_(EDAM_GAIN)
                part[0].modulator_conv.weight.div_(EDAM_GAIN)
    for heads in target.heads:
        for head in heads:
            head.weight.div_(EDAM_GAIN)


def _change_anchors(target: Detector, old_sides: Sequence[Sequence[int]]) -> None:
    """Code for the target's own anchors what was coded for those of ``old_sides``: places go by the side, sizes by its logarithm."""
    for level, sides in enumerate(zip(old_sides, target.config.min_sizes, strict=True)):
        ratio = torch.tensor(sides[0]) / torch.tensor(sides[1])
        centre = torch.stack([ratio, ratio, torch.ones_like(ratio), torch.ones_like(ratio)], dim=1).flatten()
        point = ratio.repeat_interleave(10)
        for heads, factor in zip(target.heads[1:], (centre, point), strict=False):
            head = heads[level]
            head.weight.mul_(factor.view(-1, 1, 1, 1))
            head.bias.mul_(factor)
        growth = ratio.log() / target.config.variances[1]
        target.box_heads[level].bias.unflatten(0, (-1, 4))[:, 2:].add_(growth[:, None])


def fit_neck(source: Detector, target: Detector, images: Iterable[Tensor], epochs: int = 15) -> list[float]:
    """Gradient descent for a neck that inherits little: it learns to give the maps that the source's neck gives for the same features.

    Args:
        source: whose backbone computes what the target's does.
        target: fresh from :func:`transplant`, changed in place.
        images: a few batches ``(N, 3, H, W)``, normalised; photographs of the kind to be trained on.
        epochs: how often each batch is seen.

    Returns:
        For each level, the share of the variance of the source's maps that the fitted neck explains.
    """
    source.eval()
    with torch.no_grad():
        features = [_neck_input(source, image) for image in images]
        pairs = [(maps, source.neck(maps)) for maps in features]
    neck = target.neck.train()
    optimizer = torch.optim.AdamW(neck.parameters(), _NECK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _NECK_RATE, total_steps=epochs * len(pairs))
    for _ in range(epochs):
        for maps, answers in pairs:
            loss = sum(_unexplained(mine, theirs) for mine, theirs in zip(neck(maps), answers, strict=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    norms = [module for module in neck.modules() if isinstance(module, nn.BatchNorm2d)]
    momentum = norms[0].momentum
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None  # the plain average over all batches
            norm.reset_running_stats()
        for maps, _ in pairs:
            neck(maps)
        for norm in norms:
            norm.momentum = momentum
        neck.eval()
        shares = [[1 - float(_unexplained(*level)) for level in zip(neck(maps), answers, strict=True)] for maps, answers in pairs]
    return [sum(level) / len(level) for level in zip(*shares, strict=True)]


def _unexplained(mine: Tensor, theirs: Tensor) -> Tensor:
    """Share of a map's variance round the mean of each channel."""
    variance = (theirs - theirs.mean((0, 2, 3), keepdim=True)).square().mean()
    return (mine - theirs).square().mean() / variance


@torch.no_grad()
def fit_context(source: Detector, target: Detector, images: Iterable[Tensor]) -> list[float]:
    """Least squares for what SCM cannot take over from SSH: level by level, SCM's fourth branch learns to predict the channels of SSH's
    first branch that were dropped, then the heads are fitted anew to what the source's heads answer.

    Args:
        source: with SSH; its neck computes what the target's does (up to EDAM's gain).
        target: fresh from :func:`transplant`, changed in place.
        images: a few batches ``(N, 3, H, W)``, normalised; photographs of the kind to be trained on.

    Returns:
        For each level, the share of the variance of the source's answers that the fitted heads explain.
    """
    batches = list(images)
    source.eval()
    target.eval()
    explained = []
    for level in range(len(target.config.strides)):
        scm, ssh = target.context[level], source.context[level]
        inputs = [_context_input(source, image, level) for image in batches]
        gain = EDAM_GAIN if target.config.attention == "edam" else 1.0
        chosen = _importance(source, level).argsort(descending=True)[: scm.branch1[1].num_features]
        dropped = torch.ones(ssh.branch1[1].num_features, dtype=torch.bool)
        dropped[chosen] = False
        weight, bias, _ = _ridge(
            [(_patches(scm.hidden4(scm.hidden3(scm.hidden2(x * gain)))), _rows(ssh.branch1(x)[:, dropped])) for x in inputs]
        )
        conv, norm = scm.branch4[0], scm.branch4[1]
        conv.weight.copy_(weight.T.reshape(conv.weight.shape))
        _identity_norm(norm)
        norm.bias.copy_(bias)
        features = [(_rows(target.context_attention[level](scm(x * gain))), ssh(x)) for x in inputs]
        heads = [(theirs[level], own[level]) for theirs, own in zip(source.heads, target.heads, strict=False)]
        answers = [(own, torch.cat([_rows(old(theirs)) for old, _ in heads], dim=1)) for own, theirs in features]
        # Faces are rare: cells that the source takes for one count as much as all others together.
        importance = [_faceness(row) for _, row in answers]
        weight, bias, share = _ridge(answers, importance)
        start = 0
        for _, head in heads:
            stop = start + head.out_channels
            head.weight.copy_(weight[:, start:stop].T[..., None, None])
            head.bias.copy_(bias[start:stop])
            start = stop
        explained.append(share)
    return explained


def _context_input(source: Detector, image: Tensor, level: int) -> Tensor:
    return source.neck_attention[level](source.neck(_neck_input(source, image))[level])


def _neck_input(source: Detector, image: Tensor) -> list[Tensor]:
    return [attend(feature) for attend, feature in zip(source.backbone_attention, source.backbone(image), strict=True)]


def _rows(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _patches(x: Tensor) -> Tensor:
    """``(N, C, H, W)`` to ``(N * H * W, C * 9)``: what a 3x3 convolution sees."""
    return nn.functional.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1)


def _faceness(answers: Tensor) -> Tensor:
    """Weight of each row, from the two anchors' logits in its first four columns."""
    logits = answers[:, :4].unflatten(1, (2, 2))
    return logits.softmax(-1)[..., 1].amax(1)


def _ridge(pairs: Sequence[tuple[Tensor, Tensor]], faceness: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor, float]:
    """Weights ``(I, O)``, intercept ``(O,)`` and explained share of ``outputs ~ inputs @ weights + intercept`` over all batches."""
    inputs, outputs = (torch.cat([pair[side] for pair in pairs]).double() for side in (0, 1))
    scale = torch.ones(len(inputs), dtype=torch.float64)
    if faceness is not None:
        faces = torch.cat(list(faceness)).double()
        scale += faces * (len(faces) / faces.sum().clamp(min=1.0))
    scale /= scale.sum()
    centre_in, centre_out = scale @ inputs, scale @ outputs
    inputs, outputs = inputs - centre_in, outputs - centre_out
    gram = (inputs * scale[:, None]).T @ inputs
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    weights = torch.linalg.solve(gram, (inputs * scale[:, None]).T @ outputs)
    error = scale @ (outputs - inputs @ weights).square()
    share = 1 - float(error.sum() / (scale @ outputs.square()).sum().clamp(min=1e-12))
    return weights.float(), (centre_out - centre_in @ weights).float(), share


@torch.no_grad()
def slim(source: Detector, config: ModelConfig, images: Iterable[Tensor]) -> Detector:
    """A lighter network of ``config`` that starts near what ``source`` computes.

    A deformable layer that becomes an ordinary one loses its offsets, its weight takes the mean of its modulators in. Layers that become
    one keep their weights and share the mean of their predictors. An attention kernel keeps its first singular vectors. A merge of a
    lower rank keeps the principal components of what it answers.

    Args:
        source: with SCM.
        config: with a shared SCM, the rest alike or lighter.
        images: a few batches ``(N, 3, H, W)``, normalised; photographs of the kind to be trained on.

    Raises:
        UserError: the two differ in more than what is said above.
    """
    alike = ("backbone", "neck", "context_fusion", "attention", "activation", "channels")
    alike += ("landmarks", "strides", "min_sizes", "variances", "mean", "colour_order")
    _check_alike(source.config, config, *alike)
    target = Detector(config)
    _copy_state(source, target)
    source.eval()
    masks, merges = _observe(source, images)
    for mine, theirs in zip(_spatial_convs(target), _spatial_convs(source), strict=True):
        if isinstance(mine, nn.Sequential):
            _factorise(theirs, mine)
    for level, (mine, theirs) in enumerate(zip(target.neck.merges, source.neck.merges, strict=True)):
        if isinstance(mine[0], DeformConv2d):
            continue
        weight, norm = _without_offsets(theirs[0], masks), theirs[1]
        if isinstance(mine[1], nn.Conv2d):
            _reduce_rank(weight, norm, torch.cat(merges[level]), mine)
        else:
            mine[0].weight.copy_(weight)
            _copy_norm(norm, mine[1])
    for mine, theirs in zip(target.context, source.context, strict=True):
        _share(theirs, mine, masks)
    return target.eval()


def _spatial_convs(detector: Detector) -> list[nn.Module]:
    return [module.spatial.conv for module in detector.modules() if isinstance(module, EDAM)]


def _observe(source: Detector, images: Iterable[Tensor]) -> tuple[dict[nn.Module, Tensor], list[list[Tensor]]]:
    """The mean of each deformable layer's modulators, ``(9,)``; what each merge's convolution answered, ``(rows, outputs)`` each."""
    masks: dict[nn.Module, list[Tensor]] = {}
    merges: list[list[Tensor]] = [[] for _ in source.neck.merges]
    handles = []
    for module in source.modules():
        if isinstance(module, DeformConv2d):
            means = masks.setdefault(module, [])
            handles.append(
                module.modulator_conv.register_forward_hook(
                    lambda _, __, output, means=means: means.append(2 * torch.sigmoid(output).mean((0, 2, 3)))
                )
            )
    for merge, seen in zip(source.neck.merges, merges, strict=True):
        handles.append(merge[0].register_forward_hook(lambda _, __, output, seen=seen: seen.append(_rows(output))))
    try:
        for image in images:
            source(image)
    finally:
        for handle in handles:
            handle.remove()
    return {module: torch.stack(means).mean(0) for module, means in masks.items()}, merges


def _without_offsets(layer: nn.Module, masks: dict[nn.Module, Tensor]) -> Tensor:
    return layer.weight * masks[layer].view(1, 1, 3, 3) if layer in masks else layer.weight


def _copy_norm(source: nn.BatchNorm2d, target: nn.BatchNorm2d) -> None:
    target.load_state_dict(source.state_dict())


def _reduce_rank(weight: Tensor, norm: nn.BatchNorm2d, answers: Tensor, merge: nn.Sequential) -> None:
    """A convolution as two, with the principal components of its normalised ``answers (rows, outputs)`` between them."""
    first, second, own = merge[:3]
    scale = norm.weight.abs().clamp(min=1e-6) / (norm.running_var + norm.eps).sqrt()
    mean = answers.mean(0)
    components = torch.linalg.eigh(torch.cov((answers * scale).T)).eigenvectors[:, -first.out_channels :]
    first.weight.copy_(torch.einsum("or,o,oikl->rikl", components, scale, weight))
    second.weight.copy_((components / scale[:, None])[..., None, None])
    _copy_norm(norm, own)
    own.running_mean.sub_(mean - (components / scale[:, None]) @ (components.T @ (scale * mean)))


def _factorise(conv: nn.Conv2d, pair: nn.Sequential) -> None:
    """The kernel ``(1, 2, k, k)`` as the sum of products of rows and columns that comes nearest."""
    rows, columns = pair
    rank, size = rows.out_channels, conv.kernel_size[0]
    left, values, right = torch.linalg.svd(conv.weight[0].transpose(0, 1).reshape(size, 2 * size), full_matrices=False)
    root = values[:rank].sqrt()
    rows.weight.copy_((root[:, None] * right[:rank]).view(rank, 2, 1, size))
    columns.weight.copy_((left[:, :rank] * root).T.reshape(1, rank, size, 1))
    columns.bias.copy_(conv.bias)


def _share(scm: SCM, shared: SharedSCM, masks: dict[nn.Module, Tensor]) -> None:
    groups = ((scm.branch1, scm.hidden2), (scm.branch2, scm.hidden3), (scm.branch3, scm.hidden4), (scm.branch4,))
    for blocks, (layer, norm) in zip(groups, (*shared.pairs, shared.branch4), strict=True):
        for name, tensor in norm.state_dict().items():
            parts = [block[1].state_dict()[name] for block in blocks]
            tensor.copy_(torch.cat(parts) if tensor.dim() else parts[0])
        layers = [block[0] for block in blocks]
        if isinstance(layer, DeformConv2d):
            layer.weight.copy_(torch.cat([part.weight for part in layers]))
            for name in ("offset_conv", "modulator_conv"):
                mine, theirs = getattr(layer, name), [getattr(part, name) for part in layers]
                mine.weight.copy_(torch.stack([conv.weight for conv in theirs]).mean(0))
                mine.bias.copy_(torch.stack([conv.bias for conv in theirs]).mean(0))
        else:
            layer.weight.copy_(torch.cat([_without_offsets(part, masks) for part in layers]))
