"""The Android demo, started over adb: by a stand-in for adb and by Android's own daemon, with stand-ins for Android's commands.

``am`` does what the demo's benchmark does, but for running a network: it reads what has been put beside the app, checks the digest, and
leaves a record or the reason why there is none. That is not Android, and no app.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.artifact import write_manifest
from runtime_bench.devices import adb, app
from runtime_bench.record import read_results
from tests.conftest import error_line
from tests.golden.make_golden import FOLDER, MANIFEST
from tests.runtime_bench.test_adb import SESSION

ADB = """#!/bin/sh
state={state}
if [ "$1" = devices ]; then echo List of devices attached; cat $state/devices; exit; fi
shift 2
echo "$*" >> $state/log
if [ -e $state/$1-fails ]; then cat $state/$1-fails >&2; exit 1; fi
if [ $1 = shell ]; then exec sh -c "$3"; fi
exec cp -r "$2" "$3"
"""

AM = """#!{python}
import hashlib, json, os, sys, time
from pathlib import Path
state, files, words = Path({state!r}), Path({files!r}), sys.argv[1:]
with (state / "started").open("a") as log:
    print(*words, file=log)
if words[0] == "force-stop":
    sys.exit()
assert words[:4] == ["start", "-S", "-n", "acwface.demo/.BenchmarkActivity"], words
if (state / "am-says").exists():
    print((state / "am-says").read_text())
    sys.exit()
extras = {{}}
while len(words) > 4:
    kind, name, value = words[-3:]
    extras[name] = int(value) if kind == "--ei" else value == "true" if kind == "--ez" else value
    del words[-3:]
if os.fork():
    sys.exit()
os.setsid()
for stream in range(3):
    os.close(stream)
hardware, benchmark = extras.get("hardware"), files / "benchmark"
(files / "models").mkdir(parents=True, exist_ok=True)
benchmark.mkdir(exist_ok=True)
does = (state / "does").read_text().split() if (state / "does").exists() and hardware == "gpu" else [""]
pid = state / "pid"
pid.write_text(str(os.getpid()))
def leave(name, text):
    (benchmark / ("." + name)).write_text(text)
    pid.unlink()
    (benchmark / ("." + name)).rename(benchmark / name)
    os._exit(0)
def fail(reason):
    leave(extras["record"] + ".failed", reason + "\\n")
if does[0] == "crashes":
    pid.unlink()
    os._exit(1)
if does[0] == "hangs":
    time.sleep(30)
if does[0] == "unplugs":
    (state / "shell-fails").write_text("adb: device 'one' not found")
    os._exit(1)
folder = files / "models" / extras.get("model", "null")
if not folder.is_dir():
    fail("no model " + folder.name + " in this app")
if does[0] == "refuses":
    fail("the GPU runs 12 of 14 operators")
manifest = json.loads((folder / "detector.json").read_text())
model = folder / manifest["model"]["name"]
if hashlib.sha256(model.read_bytes()).hexdigest() != manifest["model"]["sha256"]:
    fail("The model file of " + folder.name + " is not the one that was exported.")
record = json.loads({record!r})
record |= {{name: manifest[name] for name in ("variant", "dcn", "precision", "format", "weights")}}
record |= {{"artifact": folder.name, "checkpoint": manifest["reference"]["sha256"], "size_bytes": manifest["model"]["size_bytes"]}}
record |= {{"device": "Acme P1, Android 14, " + hardware, "threads": extras["threads"] if hardware == "cpu" else 1}}
record["latency_ms"] |= {{"runs": extras["runs"], "warmup": extras["warmup"]}}
if does[0] == "falls-back" and extras["fallback"] is False:
    record["device"] = record["device"].replace("gpu", "cpu")
if does[0] == "is-another":
    record["checkpoint"] = "0" * 64
leave(extras["record"] + ".json", json.dumps([record]))
"""


def write_command(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def put_commands(folder: Path, state: Path, files: Path) -> None:
    """Android's commands that the benchmark needs."""
    folder.mkdir()
    state.mkdir(exist_ok=True)
    record = json.dumps(json.loads((FOLDER / "record.json").read_text())["records"][0])
    commands = {
        "am": AM.format(python=sys.executable, state=str(state), files=str(files), record=record),
        "pm": f'#!/bin/sh\n[ "$*" = "path acwface.demo" ] && cat {state}/installed\n',
        "pidof": f'#!/bin/sh\n[ "$*" = acwface.demo:benchmark ] && cat {state}/pid\n',
    }
    for name, text in commands.items():
        write_command(folder / name, text)
    (state / "installed").write_text("package:/data/app/1/base.apk\n")


def make_artifact(path: Path, **changes: object) -> Path:
    """Of a network that nothing can run."""
    path.mkdir()
    (path / MANIFEST.model.name).write_bytes(b"a model")
    (path / MANIFEST.reference.name).write_bytes(b"a reference")
    write_manifest(path, MANIFEST)
    if changes:
        text = json.loads((path / "detector.json").read_text()) | changes
        (path / "detector.json").write_text(json.dumps(text))
    return path


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A folder with what the stand-ins know: what ``does`` says the app does on the GPU; ``log`` of adb, ``started`` of am."""
    state, programs = tmp_path / "state", tmp_path / "bin"
    put_commands(programs, state, tmp_path / "files")
    properties = {"ro.product.manufacturer": "Acme", "ro.product.model": "P1", "ro.build.version.release": 14}
    cases = "".join(f"{name}) echo {value};;" for name, value in properties.items())
    for name, text in {
        "adb": ADB.format(state=state),
        "getprop": f"#!/bin/sh\ncase $1 in {cases} esac\n",
        "dumpsys": "#!/bin/sh\n[ $1 = battery ] && printf '  USB powered: true\\n  level: 80\\n  scale: 100\\n'\n",
    }.items():
        write_command(programs / name, text)
    (state / "devices").write_text("one\tdevice\n")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(adb, "FOLDER", str(tmp_path / "memory"))
    monkeypatch.setattr(app, "FILES", str(tmp_path / "files"))
    monkeypatch.setattr(app, "_POLL_S", 0.05)
    monkeypatch.setattr("runtime_bench.devices.phone.SYS", str(tmp_path))
    return state


@pytest.fixture
def measure(cli, phone, tmp_path):
    """Run the command on an artifact: exit code, stdout, stderr."""
    artifact = make_artifact(tmp_path / "some net")

    def run(*options: object) -> tuple[int, str, str]:
        return cli("runtime_bench", "app", artifact, "--json", tmp_path / "r.json", "--cool-down", 0, *options)

    return run


def started(phone: Path) -> int:
    return (phone / "started").read_text().count("start -S")


def test_artifacts_are_put_there_once_and_records_come_back(cli, measure, phone, tmp_path):
    code, table, progress = measure("--hardware", "cpu", "gpu", "--threads", 4, "--runs", 7, "--warmup", 3)
    assert code == 0, progress
    cpu, gpu = read_results(tmp_path / "r.json")
    assert (cpu.device, cpu.accelerator, cpu.threads) == ("Acme P1, Android 14, cpu", "cpu", 4)
    assert (gpu.device, gpu.accelerator, gpu.threads) == ("Acme P1, Android 14, gpu", "gpu", 1)
    assert (cpu.artifact, cpu.checkpoint, cpu.latency_ms.runs, cpu.latency_ms.warmup) == ("some net", MANIFEST.reference.sha256, 7, 3)
    assert (cpu.phone.before.battery_percent, cpu.phone.after.model, cpu.phone.cool_down_s) == (80, "Acme P1", 0)
    assert "some net on Acme P1, Android 14, gpu" in table
    log = (phone / "log").read_text()
    assert log.count("\npush") == 2  # the model file and its contract
    assert started(phone) == 3  # the first makes the app's folder
    assert (phone / "started").read_text().endswith("force-stop acwface.demo\n")
    assert sorted(path.name for path in (tmp_path / "files" / "models" / "some net").iterdir()) == ["detector.json", "model.tflite"]
    assert not list((tmp_path / "memory").glob("*/*"))
    assert not list((tmp_path / "files" / "benchmark").glob("*.json"))

    assert measure()[0] == 0
    assert (phone / "log").read_text().count("\npush") == 2
    (tmp_path / "files" / "models" / "some net" / "model.tflite").write_text("another")
    assert measure()[0] == 0
    assert (phone / "log").read_text().count("\npush") == 4

    assert cli("runtime_bench", "report", tmp_path / "r.json", "--out", tmp_path)[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "1 thread, on the GPU, 50 runs in one process, after 10 to warm up, Some SoC" in page
    assert "no phone has been measured" not in page


def test_what_is_recorded_is_not_measured_again(measure, phone, tmp_path):
    assert measure()[0] == 0
    before = started(phone)
    records = (tmp_path / "r.json").read_bytes()
    assert measure("--resume")[0] == 0
    assert (started(phone), (tmp_path / "r.json").read_bytes()) == (before, records)
    assert measure("--resume", "--runs", 8)[0] == 0
    assert started(phone) == before + 2
    (phone / "installed").write_text("package:/data/app/2/base.apk\n")  # the app has been built again
    assert measure("--resume", "--runs", 8)[0] == 0
    assert started(phone) == before + 4


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("refuses", "Acme P1, Android 14, gpu: some net: the GPU runs 12 of 14 operators"),
        ("crashes", "the app ended without a record: it crashed, or memory was short; adb -s one logcat -d -b crash says more"),
        ("hangs", "no record after 1 s, the app was stopped"),
        ("falls-back", "asked for gpu, the app ran it on cpu; build it and install it"),
        ("is-another", "is of another file than"),
        ("unplugs", "adb: device 'one' not found"),
    ],
)
def test_one_measurement_that_goes_wrong_is_one_line(measure, phone, tmp_path, does, said):
    assert measure("--hardware", "cpu")[0] == 0
    (phone / "does").write_text(does)
    code, _, error = measure("--resume", *(["--time-limit", 1] if does == "hangs" else []))
    assert code == 2
    assert said in error_line(error)
    (cpu,) = read_results(tmp_path / "r.json")
    before = started(phone)

    (phone / "shell-fails").unlink(missing_ok=True)
    (phone / "does").unlink()
    assert measure("--resume")[0] == 0
    assert started(phone) == before + 1
    again, gpu = read_results(tmp_path / "r.json")
    assert (again, gpu.accelerator) == (cpu, "gpu")


def test_what_stands_in_the_way_is_said(cli, measure, phone, tmp_path):
    (phone / "am-says").write_text("Starting: Intent { }\nError type 3\nError: Activity class {acwface.demo/.X} does not exist.")
    code, _, error = measure("--hardware", "npu")
    assert code == 2
    assert "some net: Activity class {acwface.demo/.X} does not exist.; build it and install it" in error_line(error)
    (phone / "am-says").unlink()

    (phone / "installed").write_text("")
    assert "one does not have the demo (acwface.demo); build it and install it: ./gradlew" in error_line(measure()[2])
    assert "phones with the demo are adb:SERIAL" in error_line(measure("--device", "local")[2])
    assert "no device two; adb sees one" in error_line(measure("--device", "adb:two")[2])
    (phone / "installed").write_text("package:x")

    other = make_artifact(tmp_path / "other", format="onnx")
    code, _, error = cli("runtime_bench", "app", other, "--json", tmp_path / "o.json")
    assert code == 2
    assert "is onnx; the app runs tflite" in error_line(error)


def test_phones_rest_between_measurements(measure, phone, monkeypatch, tmp_path):
    monkeypatch.setattr(app.PhoneWatch, "__init__", lambda self, seconds: self.__dict__.update(_cool_down_s=0.1, _warm=set()))
    code, _, progress = measure()
    assert code == 0
    assert "some net on gpu: adb:one cools down" in progress
    assert [result.phone.cool_down_s for result in read_results(tmp_path / "r.json")] == [0, 0.1]


def test_androids_daemon(tmp_path):
    if not all(map(shutil.which, ("adb", "adbd", "unshare", "ip"))):
        pytest.skip("adb, adbd (Debian's, on the PATH), unshare or ip is missing")
    put_commands(tmp_path / "shell", tmp_path / "state", tmp_path / "files")
    artifact = make_artifact(tmp_path / "some net")
    script = (
        "import sys\n"
        "from runtime_bench.devices import adb, app\n"
        f"adb.FOLDER, app.FILES = {str(tmp_path / 'memory')!r}, {str(tmp_path / 'files')!r}\n"
        "from runtime_bench.__main__ import main, run_command\n"
        "sys.exit(run_command(main))\n"
    )
    session = ["unshare", "-Urnm", "bash", "-c", SESSION, "session", "", tmp_path, sys.executable, "-c", script]
    arguments = ["app", artifact, "--device", "adb:localhost:5555", "--cool-down", "0", "--json", tmp_path / "r.json"]
    finished = subprocess.run([*session, *arguments], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    cpu, gpu = read_results(tmp_path / "r.json")
    assert (cpu.device, gpu.device) == ("some some, Android some, cpu", "some some, Android some, gpu")
    assert (cpu.artifact, cpu.accelerator, gpu.accelerator, gpu.phone.after.battery_percent) == ("some net", "cpu", "gpu", 80)

    (tmp_path / "state" / "does").write_text("refuses")
    finished = subprocess.run([*session, *arguments], capture_output=True, text=True)
    assert finished.returncode == 2
    assert "some net: the GPU runs 12 of 14 operators" in error_line(finished.stderr)
