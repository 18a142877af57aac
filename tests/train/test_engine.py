"""The loop: it learns, resumes exactly, and stops well."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import VARIANTS
from model.detector import build_detector
from model.errors import UserError
from train import engine
from train.engine import BEST, BLEND, LAST, LOG, STATE, Trainer, make_optimizer, set_rate
from train.loader import Batches, DevicePhotographs, fit, load_batches
from train.recipe import Batch, Data, Losses, Optimizer, Recipe, load_recipe
from train.widerface_data import Faces, Sample

ROOT = Path(__file__).parents[2]


def _samples() -> list[Sample]:
    random = np.random.default_rng(0)
    faces = Faces(np.asarray([[20, 20, 60, 60], [70, 30, 90, 55]], np.float32), np.full((2, 5, 2), np.nan, np.float32), np.zeros(2, bool))
    return [Sample(str(index), random.integers(0, 256, (96, 112, 3), dtype=np.uint8), faces if index % 2 else None) for index in range(6)]


RECIPE = Recipe(
    "retinaface",
    Data((Batch(64, 2), Batch(96, 1)), zoom=(0.8, 1.5)),
    steps=6,
    optimizer=Optimizer(rate=1e-3, warm_up=0.2, rates={"backbone": 0.5}),
    losses=Losses(smallest_face=2.0, mirrored_teacher=True),
    checkpoint_minutes=1e-9,
)


def _trainer(folder: Path, recipe: Recipe = RECIPE, variant: str | None = None, workers: int = 0, **options: object) -> Trainer:
    samples = _samples()
    batches = Batches(recipe, [sample for sample in samples if sample.faces], [sample for sample in samples if not sample.faces])
    detector = build_detector(replace(VARIANTS[variant or recipe.variant], offset_limit=recipe.offset_limit), seed=1)
    teacher = build_detector(VARIANTS["retinaface"], seed=2)
    return Trainer(
        recipe,
        detector,
        **({"teacher": teacher, "batches": batches, "folder": folder, "source": "test", "evaluate": None, "workers": workers} | options),
    )


def _losses(folder: Path) -> list[tuple[str, ...]]:
    with (folder / LOG).open(newline="") as file:
        return [(row["step"], row["distil_class"], row["distil_box"], row["detect_class"], row["norm"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "recipe", [RECIPE, replace(RECIPE, batch_norm="frozen", optimizer=Optimizer("sgd", rate=1e-4, schedule="step"))], ids=["adamw", "sgd"]
)
def test_resuming_gives_the_same_losses_and_weights(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _trainer(tmp_path / "whole", recipe)
    whole.run()

    class Stopped(Exception):
        pass

    def stop_after_three(self: Trainer) -> None:
        save(self)
        if self.progress.step == 3:
            raise Stopped

    save = Trainer.save
    monkeypatch.setattr(Trainer, "save", stop_after_three)
    with pytest.raises(Stopped):
        _trainer(tmp_path / "broken", recipe).run()
    monkeypatch.setattr(Trainer, "save", save)
    torch.manual_seed(99)  # a new process has another random state
    resumed = _trainer(tmp_path / "broken", recipe)
    resumed.resume()
    assert resumed.progress.step == 3
    resumed.run()

    assert _losses(tmp_path / "broken") == _losses(tmp_path / "whole")
    assert len(_losses(tmp_path / "whole")) == 6
    for name, tensor in whole.averaged.state_dict().items():
        assert torch.equal(resumed.averaged.state_dict()[name], tensor), name


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=40, data=Data((Batch(64, 4),), zoom=(1.0, 1.0), colour=0.0, people=1.0), checkpoint_minutes=60.0)
    trainer = _trainer(tmp_path, recipe)
    trainer.run()
    losses = [float(row[1]) + float(row[2]) for row in _losses(tmp_path)]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def test_labels_have_the_last_word_on_faces(tmp_path: Path) -> None:
    """The teacher is heard where nobody has labelled, and at anchors that labels leave open; at half weight on background, not on faces."""
    trainer = _trainer(tmp_path, replace(RECIPE, losses=Losses(distillation_labelled=0.5, smallest_face=35.0)))
    batch = next(
        batch
        for batch in map(trainer.batches.__getitem__, range(200))
        if batch.labelled.tolist() == [False, True] and set(batch.targets[0].labels.tolist()) == {-1, 0, 1}
    )
    answers = trainer.teacher(torch.zeros(batch.pixels.shape))
    trust = trainer._trust(answers, batch)
    assert (trust[0] == 1).all()
    expected = {-1: 1.0, 0: 0.5, 1: 0.0}
    assert trust[1].tolist() == [expected[label] for label in batch.targets[0].labels.tolist()]
    unlabelled = _trainer(tmp_path / "b", replace(RECIPE, losses=Losses(detection=0.0)))
    assert (unlabelled._trust(answers, batch) == 1).all()


def test_deformable_variant_trains_and_is_saved_whole(tmp_path: Path) -> None:
    recipe = replace(RECIPE, variant="acwface_dcn", offset_limit=1.0, batch_norm="frozen", steps=2)
    trainer = _trainer(tmp_path, recipe)
    before = {name: tensor.clone() for name, tensor in trainer.detector.state_dict().items()}
    trainer.run()
    unchanged = [name for name, parameter in trainer.detector.named_parameters() if torch.equal(parameter, before[name])]
    assert not unchanged, "every parameter learns"
    statistics = [name for name in before if "running_" in name and not torch.equal(trainer.detector.state_dict()[name], before[name])]
    assert not statistics, "frozen statistics stay"
    for name in (LAST, BEST):
        checkpoint = load_checkpoint(tmp_path / name, "acwface_dcn")
        assert checkpoint.detector.config.offset_limit == 1.0
        assert "2 steps" in checkpoint.source


def test_a_network_without_landmarks_trains_and_learns_from_its_like(tmp_path: Path) -> None:
    recipe = replace(RECIPE, variant="retinaface_mobilenetv2")
    with_labels_alone, with_teacher = (
        _trainer(tmp_path / str(index), recipe, teacher=teacher)
        for index, teacher in enumerate((None, build_detector(VARIANTS["retinaface_mobilenetv2"], seed=2)))
    )
    for trainer, parts in ((with_labels_alone, ["detect"]), (with_teacher, ["distil", "detect"])):
        trainer.run()
        with (trainer.folder / LOG).open(newline="") as file:
            rows = list(csv.DictReader(file))
        seen = {name for row in rows for name in row if row[name]}
        assert seen >= {f"{part}_{term}" for part in parts for term in ("class", "box")}
        assert not seen & {"distil_landmark", "detect_landmark"}
        assert not load_checkpoint(trainer.folder / LAST).detector.config.landmarks


def test_batches_are_a_function_of_the_step() -> None:
    samples = _samples()
    batches = Batches(RECIPE, samples[1::2], samples[::2])
    ahead = list(zip(range(4), load_batches(batches, range(4), workers=1), strict=False))
    for step, batch in ahead:
        torch.manual_seed(step * 7)
        again = batches[step]
        assert torch.equal(batch.pixels, again.pixels)
        assert all(torch.equal(a.labels, b.labels) for a, b in zip(batch.targets, again.targets, strict=True))
    assert len({batch.pixels.shape for _, batch in ahead} | {batches[step].pixels.shape for step in range(4, 20)}) == 2, (
        "both kinds of batches are drawn"
    )
    assert not torch.equal(batches[0].pixels.float().mean(), batches[1].pixels.float().mean())


def test_photographs_on_the_device_give_the_same_pixels() -> None:
    """The device is the CPU here; a GPU's resizing and colours may round otherwise."""
    samples = _samples()
    recipe = replace(RECIPE, data=Data((Batch(64, 8),), zoom=(0.8, 1.5), colour=1.0, mosaic=0.5))
    batches, expected = (Batches(recipe, samples[1::2], samples[::2]) for _ in range(2))
    nbytes = 6 * 96 * 112 * 3
    assert fit(batches, 2 * nbytes)
    assert not fit(batches, 2 * nbytes - 2)
    photographs = DevicePhotographs(batches, torch.device("cpu"))
    for step, batch in zip(range(3), load_batches(batches, range(3), workers=1), strict=True):
        assert batch.pixels is None, "workers send no pixels"
        colours = [frame.colour for frames in batch.frames for frame in frames]
        assert any(colour["channel_permutation"] for colour in colours)
        assert not any(isinstance(value, torch.Tensor) for colour in colours for value in colour.values())
        assert torch.equal(photographs.add_pixels(batch).pixels, expected[step].pixels)
        assert all(torch.equal(a.labels, b.labels) for a, b in zip(batch.targets, expected[step].targets, strict=True))


def test_a_run_takes_its_pixels_from_the_device(tmp_path: Path) -> None:
    usual = _trainer(tmp_path / "usual")
    usual.run()
    trainer = _trainer(tmp_path / "device")
    trainer.photographs = DevicePhotographs(trainer.batches, trainer.device)
    trainer.run()
    assert _losses(tmp_path / "device") == _losses(tmp_path / "usual")


def test_nan_stops_and_the_batch_is_kept(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path)
    with torch.no_grad():
        trainer.detector.class_heads[0].bias.fill_(float("nan"))
    with pytest.raises(UserError, match="step 0 is not finite"):
        trainer.run()
    kept = torch.load(next(tmp_path.glob("failed-step-0.pt")), weights_only=True)
    assert torch.equal(kept["pixels"], trainer.batches[0].pixels)


def test_a_full_disk_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = _trainer(tmp_path)
    trainer.run()
    before = (tmp_path / STATE).read_bytes()

    def full(*args: object, **options: object) -> None:
        Path(str(args[1])).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine.torch, "save", full)
    trainer.save()
    assert "could not be saved" in capsys.readouterr().err
    assert (tmp_path / STATE).read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_best_is_what_was_judged_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marks = iter([50.0, 70.0, 60.0, 40.0])
    trainer = _trainer(
        tmp_path,
        replace(RECIPE, steps=2, evaluate_minutes=1e-9),
        evaluate=lambda checkpoint: dict.fromkeys(("easy", "medium", "hard"), next(marks)),
        judged_by="9 images, scaling original",
    )
    trainer.run()
    assert "AP easy 70.00  medium 70.00  hard 70.00  (9 images, scaling original)" in capsys.readouterr().out
    assert trainer.progress.best == 70.0
    assert "1 steps" in load_checkpoint(tmp_path / BEST).source
    with (tmp_path / LOG).open(newline="") as file:
        assert [row["hard"] for row in csv.DictReader(file) if row["hard"]] == ["50", "70", "60", "40"]


def test_weights_between_first_and_last_are_judged(tmp_path: Path) -> None:
    marks = iter([10.0, 20.0, 40.0, 30.0])
    recipe = replace(RECIPE, steps=2, blend=(0.25, 0.5))
    trainer = _trainer(tmp_path, recipe, evaluate=lambda checkpoint: {"hard": next(marks)})
    first = {name: tensor.clone() for name, tensor in trainer.detector.state_dict().items()}
    trainer.run()
    best = load_checkpoint(tmp_path / BEST)
    assert "25% of the way" in best.source
    last = trainer.result().detector.state_dict()
    assert "50% of the way" in load_checkpoint(tmp_path / BLEND.format(0.5)).source
    moved = 0
    for name, tensor in best.detector.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, first[name] + (last[name] - first[name]) / 4, rtol=1e-4, atol=1e-6)
            moved += not torch.equal(tensor, first[name])
    assert moved > 50


def test_resume_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to resume"):
        _trainer(tmp_path).resume()
    _trainer(tmp_path, replace(RECIPE, steps=1)).run()
    with pytest.raises(UserError, match=r"another recipe \(seed differ"):
        _trainer(tmp_path, replace(RECIPE, steps=1, seed=5)).resume()
    (tmp_path / STATE).write_bytes(b"half a file")
    with pytest.raises(UserError, match="damaged"):
        _trainer(tmp_path).resume()


def test_teacher_of_another_convention_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="colour_order"):
        _trainer(tmp_path, teacher=build_detector(replace(VARIANTS["retinaface"], colour_order="RGB")))
    with pytest.raises(UserError, match="nothing to learn from"):
        _trainer(tmp_path, teacher=None, batches=Batches(RECIPE, [], _samples()[::2]))


def test_rates_follow_the_schedule() -> None:
    recipe = Optimizer(rate=1.0, warm_up=0.1, rates={"backbone": 0.1, "backbone.stage3": 0.0})
    detector = build_detector(VARIANTS["retinaface"])
    optimizer = make_optimizer(recipe, detector)
    assert not any(parameter.requires_grad for parameter in detector.backbone.stage3.parameters())
    assert {group["factor"] for group in optimizer.param_groups} == {0.1, 1.0}
    assert set_rate(optimizer, recipe, 0.05) == pytest.approx(0.5)
    assert set_rate(optimizer, recipe, 0.1) == pytest.approx(1.0)
    assert set_rate(optimizer, recipe, 0.55) == pytest.approx(0.5)
    assert {round(group["lr"], 6) for group in optimizer.param_groups} == {0.05, 0.5}
    parts = make_optimizer(replace(recipe, rates={"neck.": 0.5, "offset_conv": 5.0}), build_detector(VARIANTS["acwface_dcn"]))
    tensors = {group["factor"]: 0 for group in parts.param_groups}
    for group in parts.param_groups:
        tensors[group["factor"]] += len(group["params"])
    assert set(tensors) == {0.5, 1.0, 5.0}
    assert tensors[5.0] == 2 * 23  # weight and bias of every deformable layer, the neck's two among them
    step = replace(recipe, schedule="step", milestones=(0.5, 0.75))
    assert [round(set_rate(optimizer, step, share), 6) for share in (0.2, 0.6, 0.8)] == [1.0, 0.1, 0.01]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('variant = "nonsense"\nsteps = 1\n[data]\nbatches = [{ size = 64, images = 1 }]', "unknown variant"),
        ('variant = "acwface"\nsteps = 1\nminutes = 2.0\n[data]\nbatches = [{ size = 64, images = 1 }]', "exactly one"),
        ('variant = "acwface"\nsteps = 1\n[data]\nbatches = []', "batches is empty"),
        ('variant = "acwface"\nsteps = 1\nspeed = 3\n[data]\nbatches = [{ size = 64, images = 1 }]', "speed"),
        ('variant = "acwface"\nsteps = 1\n[data]\nbatches = [{ size = 64, images = 0 }]', "images"),
        ('variant = "acwface"\nsteps = 1\n[data]\nheld_out = 1\nbatches = [{ size = 64, images = 1 }]', "leaves no photograph"),
        ('variant = "acwface"\nsteps = 1\nblend = [1.0]\n[data]\nbatches = [{ size = 64, images = 1 }]', "blend"),
        ("variant = ", "recipe.toml"),
    ],
)
def test_recipes_that_make_no_sense(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        load_recipe(path)


@pytest.mark.parametrize("path", sorted((ROOT / "train" / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_of_the_project_load(path: Path) -> None:
    assert load_recipe(path).variant == path.stem.split("-")[0]


def test_command_line_end_to_end(tmp_path: Path) -> None:
    """Pseudo-labels, two steps from a transplant on one photograph, judged by the other, then --resume finds that all is done."""
    images = tmp_path / "data" / "train" / "images" / "0--Parade"
    images.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(random.integers(0, 256, (120, 90, 3), dtype=np.uint8)).save(images / f"{name}.jpg")
    (tmp_path / "data/train/label.txt").write_text("# 0--Parade/a.jpg\n20 20 40 40\n# 0--Parade/b.jpg\n30 10 30 35\n")
    teacher = tmp_path / "teacher.safetensors"
    save_checkpoint(build_detector(VARIANTS["retinaface"], seed=0), teacher, "test")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'variant = "acwface_dcn"\noffset_limit = 1.0\nmin_sizes = [[10, 20], [40, 80], [160, 320]]\nsteps = 2\n'
        '[data]\nheld_out = 2\nbatches = [{ size = 64, images = 2 }]\n[losses]\nassignment = "atss"\noverlap = true\n'
    )
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "train",
        "run",
        "--config",
        recipe,
        "--data",
        tmp_path / "data",
        "--people",
        tmp_path / "data",
        "--init",
        teacher,
    ]
    pseudo = tmp_path / "pseudo.jsonl"
    command += ["--teacher", teacher, "--pseudo", pseudo, "--out", out, "--threads", "1"]

    def run(*extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(part) for part in (*command, *extra)], cwd=ROOT, capture_output=True, text=True, check=False)

    looked = [command[0], "-m", "train", "pseudo", "--data", tmp_path / "data", "--people", tmp_path / "data", "--teacher", teacher]
    made = subprocess.run([str(part) for part in (*looked, "--out", pseudo)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert len(pseudo.read_text().splitlines()) == 1 + 2 + 2
    first = run()
    assert first.returncode == 0, first.stderr
    assert load_checkpoint(out / BEST, "acwface_dcn").detector.config.min_sizes == ((10, 20), (40, 80), (160, 320))
    again = run()
    assert again.returncode == 2
    assert "--resume" in again.stderr
    log = (out / LOG).read_text()
    assert run("--resume").returncode == 0
    assert (out / LOG).read_text() == log, "a finished run is neither trained nor judged again"
    longer = run("--resume", "--steps", "3")
    assert (longer.returncode, "steps differ" in longer.stderr) == (2, True), longer.stderr
    other = run("--variant", "retinaface", "--steps", "1", "--out", str(tmp_path / "other"), "--no-eval")
    assert other.returncode == 0, other.stderr
    assert load_checkpoint(tmp_path / "other" / BEST).detector.config.variant == "retinaface"
    assert len((tmp_path / "other" / LOG).read_text().splitlines()) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_amid_an_update_waits_for_its_end_and_the_state_is_saved(tmp_path: Path, number: signal.Signals) -> None:
    whole = _trainer(tmp_path / "whole", replace(RECIPE, checkpoint_minutes=60.0))
    whole.run()
    stopped = _trainer(tmp_path / "stopped", replace(RECIPE, checkpoint_minutes=60.0))
    update = stopped.averaged.update_parameters

    def interrupt(detector: torch.nn.Module) -> None:
        if stopped.progress.step == 2:  # the weights have been updated, their average has not
            os.kill(os.getpid(), number)
        update(detector)

    stopped.averaged.update_parameters = interrupt
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(KeyboardInterrupt):
            stopped.run()
    finally:
        for signalled, handler in handlers.items():
            signal.signal(signalled, handler)
    assert torch.load(tmp_path / "stopped" / STATE, weights_only=True)["progress"]["step"] == 3
    resumed = _trainer(tmp_path / "stopped", replace(RECIPE, checkpoint_minutes=60.0))
    resumed.resume()
    resumed.run()
    assert _losses(tmp_path / "stopped") == _losses(tmp_path / "whole")
    assert all(torch.equal(value, whole.averaged.state_dict()[name]) for name, value in resumed.averaged.state_dict().items())


def test_a_resumption_that_is_killed_at_once_keeps_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _trainer(tmp_path, replace(RECIPE, steps=2)).run()
    log = (tmp_path / LOG).read_text()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(csv.DictWriter, "writerows", killed)
    with pytest.raises(KeyboardInterrupt):
        engine._Log(tmp_path / LOG, 2)
    assert (tmp_path / LOG).read_text() == log


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    """torchrun on two CPU processes: each its own batches, one set of weights."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
        "from pathlib import Path\n"
        "from test_engine import RECIPE, _trainer\n"
        "from msgspec.structs import replace\n"
        "torch.set_num_threads(1)\n"
        "torch.distributed.init_process_group('gloo')\n"
        f"trainer = _trainer(Path({str(tmp_path / 'run')!r}), replace(RECIPE, steps=3))\n"
        "trainer.run()\n"
        f"torch.save(trainer.detector.state_dict(), Path({str(tmp_path)!r}) / f'{{trainer.rank}}.pt')\n"
        "torch.distributed.destroy_process_group()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    weights = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    learnt = [name for name in weights[0] if "running_" not in name and "num_batches" not in name]  # statistics are each process's own
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in learnt)
    single = _trainer(tmp_path / "single", replace(RECIPE, steps=3))
    single.run()
    assert any(not torch.equal(weights[0][name], single.detector.state_dict()[name]) for name in learnt), "the second process had its say"
    assert len(_losses(tmp_path / "run")) == 3
