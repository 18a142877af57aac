"""Processes that are killed while they write: what is there afterwards is whole, and what is half-made goes with the next process."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.artifact import open_artifact
from model.errors import UserError
from model.files import atomic_file, only_here, scratch_folder, write_json

_WRITER = """
import itertools, sys
from pathlib import Path
from model.files import write_json
from tests.model.test_artifact import write_artifact
print("begun", flush=True)
for number in itertools.count():
    write_artifact(Path(sys.argv[1]), model=bytes([number % 256]) * 3_000_000)
    write_json(Path(sys.argv[2]), list(range(100_000)))
"""


def writer(artifact, records):
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, artifact, records], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n", process.stderr.read()
    return process


def test_a_killed_writer_leaves_a_whole_artifact_or_none(tmp_path):
    artifact, records = tmp_path / "a", tmp_path / "r.json"
    moments = random.Random(0)
    for _ in range(8):
        process = writer(artifact, records)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.communicate()
        if artifact.exists():
            open_artifact(artifact)
        if records.exists():
            assert records.read_text().rstrip().endswith("99999\n]")


def test_two_writers_of_one_artifact_do_not_disturb_each_other(tmp_path):
    processes = [writer(tmp_path / "a", tmp_path / f"{name}.json") for name in "bc"]
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert [process.poll() for process in processes] == [None, None], [process.stderr.read() for process in processes if process.poll()]
        time.sleep(0.1)
    for process in processes:
        process.kill()
        process.communicate()
    open_artifact(tmp_path / "a")


def test_what_a_killed_process_leaves_is_removed_by_the_next_and_what_a_living_one_has_is_not(tmp_path):
    stale, foreign = tmp_path / ".a.killed", tmp_path / ".ab"
    with scratch_folder(tmp_path, ".a.") as living:
        for folder in (stale, foreign):
            (folder / "new").mkdir(parents=True)
        for folder in (stale, foreign, living):
            os.utime(folder, (0, 0))
        with scratch_folder(tmp_path, ".a.") as other:
            assert {path.name for path in tmp_path.iterdir()} == {living.name, other.name, ".ab"}
        (tmp_path / ".a.young").mkdir()
        with scratch_folder(tmp_path, ".a."):
            assert (tmp_path / ".a.young").is_dir()


_KILLED = """
import os, signal, sys
from pathlib import Path
from model.files import atomic_file
with atomic_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    temporary.with_name(".tmpXYZ").write_text("as safetensors does")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_write_of_a_file_removes_what_a_killed_one_has_left(tmp_path):
    path = tmp_path / "r.json"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", _KILLED, path])
    assert [entry.name for entry in tmp_path.iterdir()] == [".r.json.0"]
    write_json(tmp_path / "other.json", [])
    assert (tmp_path / ".r.json.0" / "r.json").read_text() == "half"
    write_json(path, [1])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["other.json", "r.json"]


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    path = tmp_path / "r.json"
    with atomic_file(path) as first:
        first.write_text("first")
        with atomic_file(path) as second:
            second.write_text("second")
        assert (path.read_text(), first.read_text()) == ("second", "first")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_one_waits_for_the_other_where_both_want_a_folder_alone(tmp_path):
    program = (
        "import sys; from pathlib import Path; from model.files import only_here\n"
        f"with only_here(Path({str(tmp_path)!r}), lambda: print('waits', flush=True)): print('has it')"
    )
    with only_here(tmp_path, pytest.fail):
        other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "waits\n"
    assert other.communicate(timeout=30)[0] == "has it\n"


def test_terminated_is_ended_with_what_is_half_made_removed(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from model.cli import run_command; from model.files import scratch_folder\n"
        "def main():\n"
        f"    with scratch_folder(Path({str(tmp_path)!r}), '.x'):\n"
        "        print('begun', flush=True); time.sleep(60)\n"
        "sys.exit(run_command(main))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (143, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("room", ["model", "export", "export.kernel", "quantize", "runtime_bench", "runtime_bench.latency", "train"])
def test_ctrl_c_while_a_program_imports_is_one_line(room):
    program = (
        "import os, runpy, signal, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name in ('argparse', 'resource'): os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.meta_path.insert(0, Interrupted())\n"
        f"runpy.run_module({room!r}, run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_is_an_exception_while_a_command_runs_and_ends_the_process_behind_it():
    program = (
        "import os, signal, sys; from model.interrupt import end_quietly; from model.cli import run_command\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler); end_quietly()\n"
        "def main():\n"
        "    try: os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally: print('cleaned')\n"
        "print(run_command(main), flush=True); os.kill(os.getpid(), signal.SIGINT); print('not reached')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "cleaned\n130\n", "interrupted\ninterrupted\n")


def test_an_ignored_ctrl_c_stays_ignored():
    program = (
        "import os, signal; from model.interrupt import end_quietly; end_quietly(); os.kill(os.getpid(), signal.SIGINT); print('here')"
    )
    command = ["bash", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, program]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "here\n"


def test_ctrl_c_behind_the_last_step_of_an_export_leaves_the_artifact(tmp_path):
    """make deletes what it was about to make, and an artifact without its description is none."""
    exporter = tmp_path / "python"
    exporter.write_text('#!/bin/bash\nmkdir -p "${@: -1}"; echo whole > "${@: -1}/detector.json"; echo written; exec sleep 60\n')
    exporter.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    process = subprocess.Popen(
        ["make", "--silent", "-o", ".venv/.ready", f"PY={exporter}", f"OUT={tmp_path}", "VARIANT=retinaface", "SIZE=64", "export-onnx"],
        cwd=Path(__file__).parents[2],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.stdout.readline() not in ("written\n", ""):
        pass
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode
    assert (tmp_path / "artifacts" / "retinaface-none-fp32-64-onnx" / "detector.json").read_text() == "whole\n"


def test_makes_that_set_up_at_once_install_one_after_the_other(tmp_path):
    root = Path(__file__).parents[2]
    for name in ("Makefile", "requirements.lock"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/bash\ncase $2 in\n"
        "venv) mkdir -p .venv/bin; cp $0 .venv/bin/python;;\n"
        "pip) echo begun >> log; sleep 0.5; echo ended >> log; [ $(wc -l < log) != 2 ];;\n"
        f'*) exec {sys.executable} "$@";;\nesac\n'
    )
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", f"PYTHON={python}", "setup"]
    three = [subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    said = [process.communicate(timeout=60)[1] for process in three]
    # The first fails, the second goes on from there, the third finds all done.
    assert (tmp_path / "log").read_text().split() == ["begun", "ended"] * 2
    assert sorted(process.returncode for process in three) == [0, 0, 2]
    assert sum(b"another make sets up .venv; waiting" in one for one in said) == 2
    assert (tmp_path / ".venv" / ".ready").exists()


def test_a_full_disk_is_one_line_with_the_file_in_it(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left") as raised:
        write_json(tmp_path / "r.json", [])
    assert raised.value.filename == str(tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    from model.checkpoint import default_checkpoint, save_checkpoint

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("model.checkpoint.save_file", full)
    with pytest.raises(UserError, match="cannot be written: I/O error: No space left"):
        save_checkpoint(default_checkpoint("retinaface").detector, tmp_path / "a.safetensors", "test")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_without_permission_is_not_said_to_be_missing(tmp_path, monkeypatch):
    from model.checkpoint import default_checkpoint, load_checkpoint, save_checkpoint

    def forbidden(path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    save_checkpoint(default_checkpoint("retinaface").detector, tmp_path / "a.safetensors", "test")
    monkeypatch.setattr("pathlib.Path.open", forbidden)
    with pytest.raises(PermissionError):
        load_checkpoint(tmp_path / "a.safetensors")


_TERMINATED = """
import time
from model.cli import run_command
def main():
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        time.sleep(1)
        print("tidied up", flush=True)
run_command(main)
"""


def test_a_second_sigterm_does_not_break_off_the_tidying_up():
    process = subprocess.Popen([sys.executable, "-c", _TERMINATED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    for _ in range(3):
        process.terminate()
        time.sleep(0.2)
    said, error = process.communicate()
    assert (said, error, process.returncode) == ("tidied up\n", "", 143)
