"""benchmark_model: what it prints is read, what it cannot do is one line and costs no other figure."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from model.errors import UserError
from model.files import sha256
from runtime_bench.benchmark_model import check_program, read_output
from runtime_bench.devices import adb, arm
from runtime_bench.record import BenchmarkModel, read_results
from tests.conftest import error_line
from tests.runtime_bench.test_adb import SESSION, phone  # noqa: F401, the fixture

PRINTED = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Min num runs: [50]
INFO: Num threads: [4]
INFO: Graph: [/data/local/tmp/model.tflite]
INFO: Loaded model /data/local/tmp/model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 1.9
INFO: Initialized session in 20.5ms.
INFO: Running benchmark for at least 10 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=12 first=61000 curr=51000 min=50500 max=61000 avg=52000.5 std=1200 p5=50500 median=51000 p95=61000

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=57 first=50900 curr=51200 min=50400 max=53000 avg=51000.25 std=400 p5=50500 median=51000 p95=52000

INFO: Inference timings in us: Init: 20500, First inference: 61000, Warmup (avg): 52000.5, Inference (avg): 51000.25
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint.
INFO: Memory footprint delta from the start of the tool (MB): init=4.5 overall=12.25
"""
READ = BenchmarkModel("sha", 20.5, 61.0, 52.0005, 12, 51.00025, 0.4, 50.4, 53.0, 57, round(4.5 * 2**20), round(12.25 * 2**20))


def test_what_it_prints_is_read():
    assert read_output(PRINTED, "sha") == READ
    # Of versions before 2.15: no prefix, no percentiles, and "Peak".
    older = PRINTED.replace("INFO: ", "").replace("Memory footprint delta from the start of the tool", "Peak memory footprint")
    assert read_output(older, "sha") == READ
    silent = "\n".join(line for line in PRINTED.splitlines() if "ootprint" not in line)
    assert read_output(silent, "sha") == msgspec.structs.replace(READ, init_memory_bytes=None, memory_bytes=None)
    # Large numbers, and runs that took the same time.
    slow = read_output(PRINTED.replace("avg=51000.25", "avg=1.23457e+06").replace("max=53000", "max=1300000"), "sha")
    assert (slow.mean_ms, slow.max_ms) == (1234.57, 1300)
    line = PRINTED.splitlines()[13]
    same = read_output(PRINTED.replace(line, "INFO: count=3 curr=51000 (all same)"), "sha")
    assert (same.runs, same.mean_ms, same.std_ms, same.min_ms, same.max_ms) == (3, 51, 0, 51, 51)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not benchmark_model's: nothing"),
        ("hello", "is not benchmark_model's: hello"),
        (PRINTED[: PRINTED.index("INFO: Inference")], "is not benchmark_model's: INFO: count=57"),
        (PRINTED.replace("INFO: count=12", "INFO: "), "is not benchmark_model's"),
        (PRINTED.replace("min=50400", "min=0"), "cannot be true"),
        (PRINTED.replace("min=50400", "min=99999"), "cannot be true"),
        (PRINTED.replace("avg=51000.25", "avg=nan"), "cannot be true"),
        (PRINTED.replace("avg=51000.25", "avg=1e999"), "cannot be true"),
        (PRINTED.replace("Init: 20500", "Init: -5"), "is not benchmark_model's"),
    ],
    ids=range(9),
)
def test_other_output_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        read_output(text, "sha")


def test_programs_that_no_phone_runs_are_refused(tmp_path):
    program = tmp_path / "program"
    for content, said in (
        (b"\x7fELF\x02\x01" + bytes(12) + (62).to_bytes(2, "little"), r"another processor \(ELF machine 62\); take the one for Android"),
        (b"\x7fELF\x02\x01" + bytes(12) + (183).to_bytes(2, "little") + bytes(40) + b"/lib/ld-linux-aarch64.so.1", "built for Linux"),
    ):
        program.write_bytes(content)
        with pytest.raises(UserError, match=said):
            check_program(program)
    program.write_bytes(b"\x7fELF\x02\x01" + bytes(12) + (183).to_bytes(2, "little") + b"/system/bin/linker64")
    check_program(program)
    with pytest.raises(UserError, match="No such file"):
        check_program(tmp_path / "none")


def write_program(path: Path, ends: str = "exit 0") -> Path:
    """Prints as benchmark_model does, if the file that it is called with is there; ``FILE.calls`` has each call."""
    path.write_text(f'#!/bin/sh\necho "$@" >> {path}.calls\n[ -e "${{1#--graph=}}" ] || exit 9\ncat <<\'END\'\n{PRINTED}END\n{ends}\n')
    return path  # not executable, as downloads are


def test_it_is_run_beside_our_own_measurement(cli, phone, artifact, tmp_path, monkeypatch):  # noqa: F811
    """With this machine's Python on the stand-in for a phone, and a script in place of the program."""
    monkeypatch.setattr("runtime_bench.devices.phone.SYS", str(tmp_path))

    def plugged_in(name: str) -> adb.Adb:
        device = adb.Adb(name.partition(":")[2])
        device.python = ("env", f"PYTHONPATH={arm.PROJECT}", sys.executable)
        return device

    monkeypatch.setattr("runtime_bench.__main__.open_device", plugged_in)
    program = write_program(tmp_path / "benchmark_model", "echo 'ERROR: Failed to allocate tensors!' >&2; exit 1")
    arguments = ("--device", "adb:one", "--runs", 2, "--limit", 1, "--cool-down", 0, "--json", tmp_path / "r.json", "--threads", 2)
    run = ("runtime_bench", "run", artifact, *arguments, "--benchmark-model", program)

    code, _, progress = cli(*run)  # an ONNX file
    assert code == 0
    assert "small: benchmark_model is not run, it is onnx" in progress
    assert read_results(tmp_path / "r.json")[0].benchmark_model is None

    for name in ("__main__", "remote"):
        monkeypatch.setattr(f"runtime_bench.{name}.why_not", lambda artifact: None)
    code, _, error = cli(*run, "--resume")
    assert code == 2
    assert error_line(error) == "adb:one: small, benchmark_model: exit code 1: ERROR: Failed to allocate tensors!"
    (ours,) = read_results(tmp_path / "r.json")
    assert (ours.images, ours.latency_ms.runs, ours.benchmark_model) == (1, 2, None)

    write_program(program)
    code, table, _ = cli(*run, "--resume")
    assert code == 0
    (both,) = read_results(tmp_path / "r.json")
    assert both.benchmark_model == msgspec.structs.replace(READ, program=sha256(program))
    assert msgspec.structs.replace(both, benchmark_model=None) == ours
    calls = Path(f"{program}.calls").read_text().splitlines()
    assert [word.partition("=")[2] for word in calls[-1].split()[1:]] == ["2", "2", "10"]  # threads, runs, warm-up
    (row,) = [line for line in table.splitlines() if line.startswith("small on adb:one") and " 57 " in line]
    assert row.split()[-9:] == ["51.0", "0.4", "50.4", "53.0", "57", "20.5", "61.0", "52.0", "13"]
    assert cli(*run, "--resume")[0] == 0
    assert len(Path(f"{program}.calls").read_text().splitlines()) == len(calls) == 2

    assert cli("runtime_bench", "report", tmp_path / "r.json", "--out", tmp_path)[0] == 0
    assert "By benchmark_model" in (tmp_path / "report.html").read_text()
    assert "benchmark_model" in (tmp_path / "report.md").read_text()

    code, _, error = cli("runtime_bench", "run", artifact, "--benchmark-model", program)
    assert code == 2
    assert "--benchmark-model is run on phones; add --device adb:SERIAL" in error_line(error)


def test_androids_daemon(tmp_path):
    if not all(map(shutil.which, ("adb", "adbd", "unshare", "ip"))):
        pytest.skip("adb, adbd (Debian's, on the PATH), unshare or ip is missing")
    program = write_program(tmp_path / "benchmark_model")
    missing = tmp_path / "none.tflite"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from model.errors import UserError\n"
        "from runtime_bench.benchmark_model import run_program\n"
        "from runtime_bench.devices import adb\n"
        "from runtime_bench.latency import Timing\n"
        f"adb.FOLDER = {str(tmp_path / 'memory')!r}\n"
        "device = adb.Attached('localhost:5555')\n"
        f"print(run_program(Path({str(program)!r}), device, {str(program)!r}, 2, Timing(30)).mean_ms)\n"
        "try:\n"
        f"    run_program(Path({str(program)!r}), device, {str(missing)!r}, 2, Timing(30))\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    session = ["unshare", "-Urnm", "bash", "-c", SESSION, "session", "", tmp_path, sys.executable, "-c", script]
    finished = subprocess.run(session, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(arm.PROJECT)})
    assert finished.returncode == 0, finished.stderr
    mean, failed = finished.stdout.splitlines()[-2:]
    assert math.isclose(float(mean), READ.mean_ms)
    assert failed == "exit code 9"
