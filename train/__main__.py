"""``python -m train``: make weights."""

from __future__ import annotations

if __name__ == "__main__":
    from model.interrupt import end_quietly

    end_quietly()

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.cli import Parser, positive, run_command
from model.config import VARIANTS
from model.deform_conv import Operator
from model.detector import Detector
from model.errors import UserError
from model.files import atomic_file
from model.preprocess import InputSpec, load_image, prepare
from runtime_bench.detect import torch_detector
from runtime_bench.evaluate import evaluate as evaluate_detector
from runtime_bench.evaluate import protocol
from runtime_bench.widerface import WiderFace, load_validation
from train.augment import normalise
from train.bench import bench, bench_loader, print_bench
from train.deform_kernel import cpu_operator
from train.engine import Evaluate, Trainer
from train.fetch import fetch_widerface
from train.loader import Batches
from train.offsets import measure_offsets, print_offsets, without_offsets
from train.pseudo import make_pseudo_labels, read_pseudo_labels
from train.recipe import Recipe, load_recipe
from train.refit import MAY_LOSE, SHARES, choose, fit, judge, keep_level, look, read_heads, write_heads
from train.transfer import fit_context, fit_neck, slim, transplant
from train.widerface_data import hold_out, load_labelled, load_unlabelled


def main() -> None:
    parser = Parser(prog="python -m train", description=__doc__.replace("``", ""))
    commands = parser.add_subparsers(dest="command", required=True)

    data = commands.add_parser(
        "data",
        help="fetch WIDER FACE (about 4 GB) into the layout that everything here reads",
        epilog="example: python -m train data build/widerface",
    )
    data.add_argument("root", type=Path, help="the folder to fill; a fetch that was broken off goes on")

    run = commands.add_parser(
        "run",
        help="train by a recipe",
        epilog="example: python -m train run --config train/recipes/acwface_dcn.toml --data WIDER --init teacher.pth --teacher teacher.pth",
    )
    run.add_argument("--config", type=Path, required=True, help="the recipe, a TOML file")
    run.add_argument("--variant", choices=list(VARIANTS), help="train this network instead of the recipe's")
    run.add_argument("--steps", type=positive, metavar="N", help="train so long instead of as long as the recipe says")
    run.add_argument("--data", type=Path, required=True, help="a WIDER FACE root")
    run.add_argument("--people", type=Path, help="a folder of photographs without labels, for distillation")
    run.add_argument("--init", type=Path, help="a checkpoint of any poorer variant to start from")
    run.add_argument("--teacher", type=Path, help="a checkpoint to learn from")
    run.add_argument("--out", type=Path, default=Path("build/train"), help="folder of the run (default: %(default)s)")
    run.add_argument("--resume", action="store_true", help="go on from the state in --out")
    run.add_argument("--list", type=Path, help="validation images to judge by, one name a line (default: the validation set)")
    run.add_argument("--no-eval", action="store_true", help="do not judge: the last weights are the best")
    run.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the step (default: %(default)s)")
    run.add_argument("--workers", type=int, default=1, help="processes that prepare batches (default: %(default)s)")
    run.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")

    run.add_argument("--pseudo", type=Path, help="pseudo-labels, see the command of that name")

    pseudo = commands.add_parser(
        "pseudo",
        help="labels from a slow teacher: several scales and the mirror, merged; once for all runs",
        epilog="example: python -m train pseudo --data WIDER --people photographs --teacher retinaface.pth --out build/pseudo.jsonl",
    )
    pseudo.add_argument("--data", type=Path, required=True, help="a WIDER FACE root; its training photographs get landmarks")
    pseudo.add_argument("--people", type=Path, help="a folder of photographs without labels; they get faces")
    pseudo.add_argument("--teacher", type=Path, required=True, help="a checkpoint")
    pseudo.add_argument("--out", type=Path, required=True, help="the file to write; what was broken off goes on")
    pseudo.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (default: %(default)s)")

    speed = commands.add_parser(
        "bench",
        help="step time, torchvision's deformable convolution against the training forms",
        epilog="example: python -m train bench --images 4 --size 352 --repeats 3",
    )
    speed.add_argument("--variant", choices=list(VARIANTS), default="acwface_dcn", help="network (default: %(default)s)")
    speed.add_argument("--images", type=int, default=8, help="in a batch (default: %(default)s)")
    speed.add_argument("--size", type=int, default=352, help="side of the crops, pixels (default: %(default)s)")
    speed.add_argument("--repeats", type=int, default=5, help="timed steps of the fast forms (default: %(default)s)")
    speed.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (default: %(default)s)")
    speed.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")

    offsets = commands.add_parser(
        "offsets",
        help="how a deformable checkpoint uses its offsets, and its AP with and without them",
        epilog="example: python -m train offsets model/weights/acwface_dcn.safetensors --data WIDER --limit 50",
    )
    offsets.add_argument("checkpoint", type=Path, help="a checkpoint with deformable layers")
    offsets.add_argument("--data", type=Path, required=True, help="a WIDER FACE root")
    offsets.add_argument("--list", type=Path, help="validation images, one name a line (default: the validation set)")
    offsets.add_argument("--limit", type=int, help="the first so many of them (default: all)")
    offsets.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (default: %(default)s)")

    refit = commands.add_parser(
        "refit",
        help="fit the class heads of a trained checkpoint again, so that scores rank by whether boxes count",
        epilog="example: python -m train refit build/train/last.safetensors --data WIDER --out build/refit.safetensors",
    )
    refit.add_argument("checkpoint", type=Path, help="a trained checkpoint")
    refit.add_argument("--data", type=Path, required=True, help="a WIDER FACE root; its training photographs are looked at")
    refit.add_argument("--out", type=Path, required=True, help="the checkpoint to write, .safetensors")
    refit.add_argument("--held-out", type=int, default=8, metavar="N", help="every so many-th of them judges (default: %(default)s)")
    refit.add_argument(
        "--may-lose",
        type=float,
        default=MAY_LOSE,
        metavar="POINTS",
        help="of AP in any subset, for more in the mean (default: %(default)s)",
    )
    refit.add_argument(
        "--limit", type=positive, default=2000, metavar="N", help="photographs to fit to, and to judge by, at most (default: %(default)s)"
    )
    refit.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (default: %(default)s)")

    args = parser.parse_args()
    if args.command == "data":
        fetch_widerface(args.root)
        return
    if args.threads < 1:
        raise UserError(f"--threads {args.threads}: at least 1 is needed")
    torch.set_num_threads(args.threads)
    if args.command == "bench":
        if min(args.images, args.size - 31, args.repeats) < 1:
            raise UserError("--images and --repeats must be at least 1, --size at least 32")
        rows = bench(args.variant, args.images, args.size, args.repeats, args.device)
        print_bench(rows, *bench_loader(args.variant, args.images, args.size, args.repeats, args.device))
    elif args.command == "pseudo":
        photographs = [*load_labelled(args.data, 1, False), *(load_unlabelled(args.people, 1, False) if args.people else [])]
        make_pseudo_labels(args.teacher, photographs, args.out)
    elif args.command == "offsets":
        _offsets(args)
    elif args.command == "refit":
        _refit(args)
    else:
        _run(args)


def _run(args: argparse.Namespace) -> None:
    if args.workers < 0:
        raise UserError(f"--workers {args.workers}: 0 (none) or more are needed")
    recipe = load_recipe(args.config)
    changes = {"variant": args.variant} if args.variant else {}
    changes |= {"steps": args.steps, "minutes": None} if args.steps else {}
    recipe = msgspec.structs.replace(recipe, **changes)
    device = _join_processes(args.device)
    if (args.out / "state.pt").exists() and not args.resume:
        raise UserError(f"{args.out} holds an unfinished run; pass --resume to go on with it or another --out")
    teacher = None if args.teacher is None else _load(args.teacher, recipe).detector
    held_out = recipe.data.held_out
    judged_by = None if args.no_eval else hold_out(args.data, held_out) if held_out else load_validation(args.data, args.list)
    evaluate = None if judged_by is None else make_evaluate(judged_by)
    words = "" if judged_by is None else _judged_by(judged_by)
    improve = None if args.pseudo is None else read_pseudo_labels(args.pseudo)
    labelled = load_labelled(args.data, recipe.data.longest_side, recipe.data.in_memory, held_out, improve)
    unlabelled = []
    if args.people and (teacher or improve):
        unlabelled = load_unlabelled(args.people, recipe.data.longest_side, recipe.data.in_memory, improve)
    batches = Batches(recipe, labelled, unlabelled)
    torch.manual_seed(recipe.seed)
    detector, source = _start(recipe, args.init, batches)
    trainer = Trainer(recipe, detector, teacher, batches, args.out, source, evaluate, args.workers, device, words)
    if trainer.photographs is not None:
        print("photographs are kept in the GPU's memory")
    if args.resume:
        trainer.resume()
    trainer.run()
    if trainer.world > 1:
        torch.distributed.destroy_process_group()


def _join_processes(device: str) -> str:
    """Join the others where torchrun has started several; the device of this one."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {device}: torch sees no GPU; pass --device cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    return device


def _load(path: Path, recipe: Recipe) -> Checkpoint:
    """A checkpoint that answers for the recipe's anchors, whatever its own were."""
    checkpoint = load_checkpoint(path)
    config = msgspec.structs.replace(checkpoint.detector.config, min_sizes=recipe.config.min_sizes)
    return Checkpoint(transplant(checkpoint.detector, config), checkpoint.source)


def _start(recipe: Recipe, init: Path | None, batches: Batches) -> tuple[Detector, str]:
    if init is None:
        return Detector(recipe.config), f"random initialisation, seed {recipe.seed}"
    checkpoint = _load(init, recipe)
    old, new = checkpoint.detector.config, recipe.config

    def images(count: int) -> Iterator[Tensor]:
        """Batches below step 0 are of the training kind, but none that training will see."""
        return (normalise(batches[-step].pixels, new) for step in range(1, count + 1))

    if (old.context, new.context) == ("scm", "scm_shared"):
        detector = slim(checkpoint.detector, new, images(8))
    else:
        detector = transplant(checkpoint.detector, new)
        if new.neck == "bifpn" != old.neck:
            _say_explained("neck fitted; explained share of the inherited pyramid", fit_neck(checkpoint.detector, detector, images(24)))
        if new.context != old.context:
            _say_explained("context fitted; explained share of the heads' answers", fit_context(checkpoint.detector, detector, images(8)))
    return detector, f"started from {init.name} ({checkpoint.source})"


def _say_explained(what: str, shares: Iterable[float]) -> None:
    print(f"{what}: " + ", ".join(f"{share:.4f}" for share in shares))


def _offsets(args: argparse.Namespace) -> None:
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit {args.limit}: at least 1 is needed")
    checkpoint = load_checkpoint(args.checkpoint)
    validation = load_validation(args.data, args.list, args.limit)
    spec = InputSpec(mean=checkpoint.detector.config.mean, colour_order=checkpoint.detector.config.colour_order)
    # Every tenth photograph says enough about a distribution.
    names = list(validation.faces)[::10]
    print_offsets(
        measure_offsets(
            checkpoint.detector, (torch.from_numpy(prepare(load_image(validation.images / name), spec).tensor) for name in names)
        )
    )
    for words, operator in (("as trained", cpu_operator()), ("offsets 0", without_offsets)):
        precision = make_evaluate(validation, operator)(checkpoint)
        figures = "  ".join(f"{name} {value:.2f}" for name, value in precision.items())
        print(f"AP {words:11}{figures}  ({_judged_by(validation)})")


def _refit(args: argparse.Namespace) -> None:
    if args.out.suffix != ".safetensors":
        raise UserError(f"--out {args.out}: the name of a checkpoint ends in .safetensors")
    if args.held_out < 2:
        raise UserError(f"--held-out {args.held_out}: at least 2 are needed, to leave photographs to fit to")
    if not args.may_lose >= 0:
        raise UserError(f"--may-lose {args.may_lose}: 0 points or more are needed")
    checkpoint = load_checkpoint(args.checkpoint)
    with atomic_file(args.out) as temporary:  # now, so that a folder that may not be written to is found out before minutes of work
        words = _fit_heads(checkpoint.detector, args)
        save_checkpoint(checkpoint.detector, temporary, f"{checkpoint.source}; {words}")
    print(f"{args.out} written: {words}")


def _fit_heads(detector: Detector, args: argparse.Namespace) -> str:
    """Change the class heads by what the photographs say; what was done, in words."""
    detector.use_training_forms(cpu_operator())  # the same function, faster
    fitted_to, judges = (hold_out(args.data, args.held_out, others, args.limit) for others in (True, False))
    old = read_heads(detector)
    shown = look(detector, fitted_to)
    new = fit(shown, old)
    ways = [keep_level(shown, old, torch.lerp(old, new, share)) for share in SHARES]
    shown = look(detector, judges)
    precisions = [judge(shown, weights) for weights in ways]
    best = choose(precisions, args.may_lose)
    print(f"AP of {_judged_by(judges)}, so far on the way to the fitted heads:")
    for number, (share, precision) in enumerate(zip(SHARES, precisions, strict=True)):
        figures = "  ".join(f"{name} {value:.2f}" for name, value in precision.items())
        print(f"{share:>5.0%}  {figures}{'  chosen' if number == best else ''}")
    detector.use_training_forms(None)
    write_heads(detector, ways[best])
    return f"class heads fitted again on {len(fitted_to)} photographs, {SHARES[best]:.0%} of the way"


def _judged_by(dataset: WiderFace) -> str:
    """What :func:`make_evaluate` takes AP by."""
    return f"{len(dataset)} images of {dataset.title}, scaling {protocol(None)}"


def make_evaluate(validation: WiderFace, operator: Operator | None = None) -> Evaluate:
    """AP by subset, at original scale, with everything that the published evaluation keeps; ``operator`` as in ``use_training_forms``."""

    def evaluate(checkpoint: Checkpoint) -> Mapping[str, float]:
        checkpoint.detector.use_training_forms(operator or cpu_operator())  # the same function, faster
        ap = evaluate_detector(torch_detector(checkpoint, None), validation, "evaluating").ap
        return {subset: value for subset, value in msgspec.structs.asdict(ap).items() if value is not None}

    return evaluate


if __name__ == "__main__":
    sys.exit(run_command(main))
