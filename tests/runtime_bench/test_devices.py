"""Artifacts on other devices: nothing is run twice, nothing is lost with a device, and what it computes otherwise is in the record."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.errors import UserError
from runtime_bench.devices import arm, open_device, qemu
from runtime_bench.devices.local import Local, run_here
from runtime_bench.record import read_results
from runtime_bench.runtimes import Outputs
from tests.conftest import error_line


class Phone(Local):
    """This machine with a folder of its own in place of a phone's memory, whose scores are a sixteenth too low."""

    name = "phone:1"
    python = (sys.executable,)
    shard = 2

    def __init__(self, memory: Path, fails_after: int = 1000, forgets: int = 0) -> None:
        self.memory, self.fails_after, self.forgets = memory, fails_after, forgets
        self.pushed, self.shards = 0, []

    def describe(self) -> str:
        return "a phone"

    def push(self, path):
        self.pushed += 1
        there = self.memory / f"{self.pushed}-{path.name}"
        if path.is_dir():
            shutil.copytree(path, there)
        else:
            shutil.copyfile(path, there)
        return str(there)

    def run(self, command):
        if len(self.shards) == self.fails_after:
            raise UserError("device 'phone' not found")
        said = super().run(command)
        if "runtime_bench.latency" in command:
            return said
        with np.load(command[-1]) as outputs:
            values = {name: outputs[name][self.forgets :] for name in outputs.files if name != "runtime"}
            runtime = outputs["runtime"]
        values["scores"] = values["scores"] * np.float32(15 / 16)
        np.savez(command[-1], runtime=runtime, **values)
        self.shards.append(len(values["scores"]))
        return said


@pytest.fixture
def phone(tmp_path, monkeypatch):
    def plug_in(**how) -> Phone:
        shutil.rmtree(tmp_path / "memory", ignore_errors=True)
        (tmp_path / "memory").mkdir()
        device = Phone(tmp_path / "memory", **how)
        monkeypatch.setattr("runtime_bench.__main__.open_device", lambda name: Local() if name == "local" else device)
        return device

    return plug_in


@pytest.fixture
def arguments(artifact, tmp_path):
    return ("runtime_bench", "run", artifact, "--device", "phone:1", "--json", tmp_path / "r.json")


def test_a_run_on_a_device_is_judged_like_one_here(cli, arguments, artifact, phone, tmp_path, public_weights):
    device = phone()
    code, table, _ = cli(*arguments, "--device", "local", "--runs", 1)
    assert code == 0
    here, there = read_results(tmp_path / "r.json")
    assert [here.device, there.device] == ["local", "phone:1"]
    assert there.machine == "a phone"
    assert there.latency_ms.runs == 1
    assert there.latency_ms.median > 0
    assert (there.runtime, there.runtime_version) == (here.runtime, here.runtime_version)
    assert (there.ap, there.images, there.dataset_digest) == (here.ap, here.images, here.dataset_digest)
    assert device.shards == [2, 1]
    # Of the portrait's score, which is almost 1.
    assert 0.055 < there.device_drift.scores <= 1 / 16 + 1e-6
    assert there.device_drift.boxes_px == there.device_drift.landmarks_px == 0
    assert there.device_drift.drift.box_iou.mean == 1
    assert here.device_drift is None
    assert "small on phone:1" in table


def test_a_device_that_is_lost_costs_what_it_was_working_on(cli, arguments, artifact, phone, tmp_path):
    lost = phone(fails_after=1)
    code, _, progress = cli(*arguments)
    assert code == 2
    assert "phone:1: device 'phone' not found" in error_line(progress)
    assert lost.shards == [2]

    back = phone()
    assert cli(*arguments, "--resume")[0] == 0
    assert back.shards == [1]
    (result,) = read_results(tmp_path / "r.json")
    assert result.images == 3

    idle = phone()
    assert cli(*arguments, "--resume")[0] == 0
    assert idle.shards == []
    assert read_results(tmp_path / "r.json") == [result]
    # Without the flag everything is run again, and with it if something else is asked.
    again = phone()
    assert cli(*arguments)[0] == 0
    assert again.shards == [2, 1]
    other = phone()
    assert cli(*arguments, "--runs", 7, "--resume")[0] == 0
    assert other.shards == [2, 1]


def test_outputs_for_another_number_of_photographs_are_refused(cli, arguments, phone):
    phone(forgets=1)
    code, _, progress = cli(*arguments)
    assert code == 2
    assert "another number of photographs" in error_line(progress)


@pytest.mark.parametrize("left", [0, 0.5, 0.99])
def test_outputs_that_are_cut_short_are_refused(cli, arguments, phone, monkeypatch, left):
    device = phone()

    def pull(there, here):
        contents = Path(there).read_bytes()
        here.write_bytes(contents[: int(left * len(contents))])

    monkeypatch.setattr(device, "pull", pull, raising=False)
    code, _, progress = cli(*arguments)
    assert code == 2
    assert "cut short or damaged; go on with --resume" in error_line(progress)
    monkeypatch.undo()


def test_nothing_runs_on_devices_while_latency_is_measured_here(cli, arguments, phone, monkeypatch):
    from runtime_bench import benchmark

    device, seen = phone(), []
    original = benchmark.measure_latency
    monkeypatch.setattr(benchmark, "measure_latency", lambda *args, **kw: (seen.append(device.pushed), original(*args, **kw))[1])
    assert cli(*arguments, "--device", "local", "--runs", 1)[0] == 0
    assert seen == [0]
    assert device.shards == [2, 1]


def test_forward_gives_what_the_runtime_gives(artifact, tmp_path):
    from model.artifact import open_artifact
    from runtime_bench.runtimes import open_runtime

    tensors = np.random.default_rng(0).uniform(-100, 100, (2, 3, 320, 320)).astype(np.float32)
    np.save(tmp_path / "inputs.npy", tensors)
    run_here([sys.executable, "-m", "runtime_bench.forward", artifact, tmp_path / "inputs.npy", tmp_path / "outputs.npz"])
    runtime = open_runtime(open_artifact(artifact), 1)
    with np.load(tmp_path / "outputs.npz") as outputs:
        assert outputs["runtime"].tolist() == ["onnxruntime", runtime.version, "cpu"]
        for index, tensor in enumerate(tensors):
            for name, value in zip(Outputs._fields, runtime.run(tensor[None]), strict=True):
                np.testing.assert_array_equal(outputs[name][index], value)


def test_forward_imports_no_torch(artifact, tmp_path):
    """Devices have none."""
    np.save(tmp_path / "inputs.npy", np.zeros((1, 3, 320, 320), np.float32))
    script = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import runtime_bench.forward\n"
        "runtime_bench.forward.main()\n"
    )  # fmt: skip
    command = [sys.executable, "-c", script, artifact, tmp_path / "inputs.npy", tmp_path / "outputs.npz"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("name", ["fax", "qemu", "qemu:"])
def test_what_is_no_device_is_said(cli, artifact, name):
    code, _, error = cli("runtime_bench", "run", artifact, "--device", name)
    assert code == 2
    assert f"no device called {name!r}" in error_line(error)


def test_devices_are_listed(cli):
    code, said, _ = cli("runtime_bench", "devices")
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()][:4] == ["local", *(f"qemu:{cpu}" for cpu in qemu.CPUS)]


def test_commands_that_fail_say_why(tmp_path):
    with pytest.raises(UserError, match="no-such-program is not installed"):
        run_here(["no-such-program"])
    with pytest.raises(UserError, match="second line"):
        run_here([sys.executable, "-c", "import sys; sys.exit('first line\\nerror: second line')"])
    with pytest.raises(UserError, match="exit code 3"):
        run_here([sys.executable, "-c", "raise SystemExit(3)"])


def test_no_archive_is_said(monkeypatch):
    monkeypatch.setenv("DEBIAN_MIRROR", "http://archive.example/debian/")
    assert arm._mirror() == "http://archive.example/debian"
    monkeypatch.delenv("DEBIAN_MIRROR")
    monkeypatch.setattr(arm, "run_here", lambda command: "http://archive.example/ubuntu\n")
    with pytest.raises(UserError, match="set DEBIAN_MIRROR"):
        arm._mirror()


def test_an_emulated_processor_computes_what_this_one_does(cli, artifact, tmp_path):
    if not arm.is_prepared():
        pytest.skip("the emulator has not been set up: make bench-arm")
    code, _, _ = cli("runtime_bench", "run", artifact, "--device", "qemu:cortex-a76", "--limit", 1, "--json", tmp_path / "r.json")
    assert code == 0
    (result,) = read_results(tmp_path / "r.json")
    assert (result.latency_ms, result.load_ms, result.peak_memory_bytes) == (None, None, None)
    assert result.machine.startswith("cortex-a76, emulated by QEMU 1")
    # Other kernels, other order of additions: the same but for the last digits.
    assert 0 < result.device_drift.scores < 1e-4
    assert 0 < result.device_drift.boxes_px < 1e-2
    with pytest.raises(UserError, match="qemu:cortex-z9 cannot be used"):
        open_device("qemu:cortex-z9")
