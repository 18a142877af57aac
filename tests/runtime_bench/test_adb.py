"""Phones over adb: what goes wrong with them, by a stand-in for adb; and the protocol, by Android's own daemon on this machine.

The daemon's shell is this machine's, in a name space of its own in which QEMU runs ARM programs: what is pushed is what a phone would get,
and executed by the loader that comes with it. That is not Android.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from model.errors import UserError
from runtime_bench.devices import adb, arm, list_devices, open_device
from runtime_bench.record import read_results

STAND_IN = """#!{python}
import os, subprocess, sys
from pathlib import Path
state, words = Path({state!r}), sys.argv[1:]
if words == ["devices"]:
    print("List of devices attached\\n" + (state / "devices").read_text() + "\\n")
    sys.exit()
assert words[:2] == ["-s", "one"], words
verb, *rest = words[2:]
with (state / "log").open("a") as log:
    print(verb, *rest, file=log)
failure = state / f"{{verb}}-fails"
if failure.exists():
    sys.exit(failure.read_text())
if verb == "shell":
    values = dict(line.split("=") for line in (state / "properties").read_text().split())
    script = "getprop() {{ case $1 in " + "".join(f"{{name}}) echo {{value}};;" for name, value in values.items()) + " esac; }}; "
    script += f"dumpsys() {{{{ [ $1 = battery ] && cat {{state}}/battery; }}}}; "
    sys.exit(subprocess.run(["sh", "-c", script + rest[-1]]).returncode)
one, other = rest
sys.exit(subprocess.run(["cp", "-r", one, other]).returncode)
"""


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A folder with what the stand-in knows: ``devices``, ``properties``, ``battery``, ``log``, and ``VERB-fails`` to make it fail."""
    state = tmp_path / "state"
    programs = tmp_path / "bin"
    state.mkdir()
    programs.mkdir()
    (programs / "adb").write_text(STAND_IN.format(python=sys.executable, state=str(state)))
    (programs / "adb").chmod(0o755)
    (state / "devices").write_text("one\tdevice")
    (state / "properties").write_text(
        "ro.product.cpu.abi=arm64-v8a ro.product.manufacturer=Acme ro.product.model=P1 ro.soc.model=S9 ro.build.version.release=14"
    )
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(adb, "FOLDER", str(tmp_path / "memory"))
    ready = tmp_path / "arm"
    for file in ("root/usr/lib/libc.so.6", f"root/usr/bin/python{arm.PYTHON}", "site/numpy.py"):
        (ready / file).parent.mkdir(parents=True, exist_ok=True)
        (ready / file).write_text(file)
    (ready / "root" / "lib").symlink_to("usr/lib")
    monkeypatch.setattr(adb, "prepare_arm", lambda: ready)
    return state


def test_everything_is_pushed_once_by_what_is_in_it(phone, tmp_path):
    device = open_device("adb:one")
    assert device.describe() == "Acme P1 (S9), Android 14"
    assert (tmp_path / "memory" / "python-arm" / "root" / "lib" / "libc.so.6").read_text() == "root/usr/lib/libc.so.6"
    (tmp_path / "a b.txt").write_text("one")
    first = device.push(tmp_path / "a b.txt")
    assert Path(first).read_text() == "one"
    pushes = (phone / "log").read_text().count("\npush")
    assert pushes == 3  # Python, the project, the file
    open_device("adb:one").push(tmp_path / "a b.txt")
    assert (phone / "log").read_text().count("\npush") == pushes
    (tmp_path / "a b.txt").write_text("two")
    assert Path(device.push(tmp_path / "a b.txt")).read_text() == "two"
    (tmp_path / "same.txt").write_text("two")
    assert Path(device.push(tmp_path / "same.txt")).read_text() == "two"
    device.pull(first, tmp_path / "back.txt")
    assert (tmp_path / "back.txt").read_text() == "one"
    assert device.run(["cat", first]) == "one"
    device.drop(first)
    assert not Path(first).exists()
    # One that was cut short is pushed again.
    Path(device.push(tmp_path / "a b.txt")).parent.joinpath(".whole").unlink()
    assert Path(device.push(tmp_path / "a b.txt")).read_text() == "two"


def test_what_is_wrong_with_a_phone_is_said(phone, tmp_path, monkeypatch):
    for devices, name, said in (
        ("", "adb:one", "adb sees none: plug one in"),
        ("two\tdevice\nthree\tdevice", "adb:one", "no device one; adb sees two, three"),
        ("one\tunauthorized", "adb:one", "one is unauthorized: unlock it"),
        ("one\toffline", "adb:one", "one is offline: unplug"),
        ("one\tno permissions (missing udev rules?); see [http://developer.android.com]", "adb:one", "one is no permissions: the user"),
    ):
        (phone / "devices").write_text(devices)
        with pytest.raises(UserError, match=said):
            open_device(name)
    (phone / "devices").write_text("one\tdevice")
    (phone / "push-fails").write_text("adb: error: failed to copy 'x' to 'y': remote write failed: No space left on device")
    with pytest.raises(UserError, match="one is full; free"):
        open_device("adb:one")
    (phone / "push-fails").unlink()
    (phone / "properties").write_text("ro.product.cpu.abi=armeabi-v7a")
    with pytest.raises(UserError, match="one has armeabi-v7a ABI; the runtimes are built for arm64-v8a"):
        open_device("adb:one")
    (phone / "shell-fails").write_text("adb: device 'one' not found")
    with pytest.raises(UserError, match="device 'one' not found"):
        open_device("adb:one")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="adb is not installed"):
        open_device("adb:one")
    assert list_devices()[-1] == ("adb:SERIAL", "adb is not installed (Debian: apt install adb; or Android's platform-tools)")


def test_the_one_phone_needs_no_name(phone):
    assert open_device("adb").name == "adb:one"
    (phone / "devices").write_text("one\tdevice\ntwo\tdevice")
    with pytest.raises(UserError, match="adb sees 2 devices: say which, adb:one or adb:two"):
        open_device("adb")
    (phone / "devices").write_text("")
    with pytest.raises(UserError, match="adb sees no device: plug one in"):
        open_device("adb")


@pytest.mark.parametrize("command", ["kill -9 $$", "echo Killed >&2; exit 137"])
def test_a_program_that_the_phone_kills_is_said(phone, command):
    device = open_device("adb:one")
    with pytest.raises(UserError, match="one killed it, as phones do when memory is short; close apps and go on with --resume"):
        device.run(["sh", "-c", command])


def test_what_a_phone_was_like_is_in_the_record_and_the_report(cli, phone, artifact, tmp_path, monkeypatch):
    """With this machine's Python on the stand-in. The second artifact waits until the phone has cooled down."""
    (phone / "battery").write_text(
        "  USB powered: false\n  level: 80\n  scale: 100\n  voltage: 4000\n  temperature: 300\n  Charge counter: 2000\n"
    )
    monkeypatch.setattr("runtime_bench.devices.phone.SYS", str(tmp_path))
    waited = []

    def cool_down(seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        if seconds < 1:  # somebody else's
            sleep(seconds)
            return
        waited.append(seconds)
        (phone / "battery").write_text((phone / "battery").read_text().replace("300", "250"))

    monkeypatch.setattr("runtime_bench.devices.phone.time.sleep", cool_down)

    def plugged_in(name: str) -> adb.Adb:
        device = adb.Adb(name.partition(":")[2])
        device.python = ("env", f"PYTHONPATH={arm.PROJECT}", sys.executable)
        return device

    monkeypatch.setattr("runtime_bench.__main__.open_device", plugged_in)
    second = tmp_path / "second"
    shutil.copytree(artifact, second)
    arguments = ("--device", "adb:one", "--runs", 2, "--limit", 1, "--cool-down", 7, "--json", tmp_path / "r.json")
    code, table, progress = cli("runtime_bench", "run", artifact, second, *arguments)
    assert code == 0, progress
    one, two = read_results(tmp_path / "r.json")
    assert waited == [7]
    assert (one.phone.cool_down_s, two.phone.cool_down_s) == (0, 7)
    assert (one.phone.before.battery_c, two.phone.before.battery_c) == (30, 25)
    assert (one.phone.before.model, one.phone.before.soc, one.phone.before.system) == ("Acme P1", "S9", "Android 14")
    assert one.phone.energy is None
    assert one.phone.seconds > 0
    assert one.accelerator == "cpu"
    row = next(line for line in table.splitlines() if line.startswith("small on adb:one") and "Acme P1, S9, Android 14" in line)
    assert re.split("  +", row)[2:] == ["cpu", "-", "-", "30 > 30", "80 > 80", "-", "-", "0"]

    assert cli("runtime_bench", "report", tmp_path / "r.json", "--out", tmp_path)[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Phones</h2>" in page
    assert "energy: not measured" in page
    assert "25 &gt; 25" in page


def test_phones_are_listed(phone):
    (phone / "devices").write_text("one\tdevice\ntwo\tunauthorized")
    (_, state), unauthorized = list_devices()[-2:]
    assert state.startswith("ready")
    assert unauthorized == ("adb:two", "unauthorized")


def test_a_phone_that_hangs_is_given_up(phone, monkeypatch):
    device = open_device("adb:one")
    monkeypatch.setattr(adb, "TIMEOUT_S", 0.5)
    with pytest.raises(UserError, match="adb: no answer for"):
        device.run(["sleep", "5"])


SESSION = r"""
set -eu
emulator=$1; work=$2; shift 2
if [ -n "$emulator" ]; then
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
echo ":aarch64:M::$magic:$mask:$emulator:F" > /proc/sys/fs/binfmt_misc/register
fi
ip link set lo up
mkdir -p "$work/shell"
printf '#!/bin/sh\n[ $1 = ro.product.cpu.abi ] && echo arm64-v8a || echo some\n' > "$work/shell/getprop"
printf '#!/bin/sh\n[ $1 = battery ] && printf "  USB powered: true\\n  level: 80\\n  scale: 100\\n"\n' > "$work/shell/dumpsys"
chmod +x "$work/shell/getprop" "$work/shell/dumpsys"
export HOME=$work
PATH=$work/shell:$PATH ADBD_PORT=5555 adbd > "$work/adbd.log" 2>&1 & daemon=$!
trap 'adb kill-server; kill $daemon' EXIT
for _ in 1 2 3 4 5 6 7 8 9 10; do adb connect localhost:5555 | grep -q ^connected && break; sleep 0.5; done
"$@"
"""


def test_androids_daemon_and_arm_programs(artifact, tmp_path):
    if not all(map(shutil.which, ("adb", "adbd", "unshare", "ip"))) or not arm.is_prepared():
        pytest.skip("adb, adbd (Debian's, on the PATH) or the emulator (make bench-arm) is missing")
    script = (
        "import sys\n"
        "from runtime_bench.devices import adb\n"
        f"adb.FOLDER = {str(tmp_path / 'memory')!r}\n"
        "from runtime_bench.__main__ import main, run_command\n"
        "sys.exit(run_command(main))\n"
    )
    session = [
        "unshare",
        "-Urnm",
        "bash",
        "-c",
        SESSION,
        "session",
        arm.arm_folder() / "qemu-aarch64",
        tmp_path,
        sys.executable,
        "-c",
        script,
    ]
    arguments = ["run", artifact, "--device", "adb:localhost:5555", "--runs", "1", "--limit", "1", "--json", tmp_path / "r.json"]
    finished = subprocess.run([*session, *arguments], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    (result,) = read_results(tmp_path / "r.json")
    assert result.device == "adb:localhost:5555"
    assert result.machine == "some some (some), Android some"
    assert 0 < result.device_drift.scores < 1e-4  # ARM kernels
    assert result.latency_ms.runs == 1
    assert (result.accelerator, result.phone.after.battery_percent, result.phone.after.charging) == ("cpu", 80, True)
    assert (result.phone.before.battery_c, result.phone.energy) == (None, None)

    # The same again: everything is there, and nothing is run.
    finished = subprocess.run([*session, *arguments, "--resume"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert msgspec.json.encode(read_results(tmp_path / "r.json")) == msgspec.json.encode([result])
