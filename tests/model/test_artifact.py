"""The contract on disk: what is written is read back; what is wrong is said; nothing half-made is left."""

import json
import subprocess

import msgspec
import pytest

from model.artifact import (
    MANIFEST,
    MEANINGS,
    REFERENCE,
    AnchorSpec,
    InputTensor,
    Manifest,
    OutputTensor,
    Parity,
    RuntimeSpec,
    artifact_name,
    describe_file,
    open_artifact,
    write_manifest,
    writing_artifact,
)
from model.errors import UserError
from model.files import atomic_file
from model.postprocess import Thresholds


def write_artifact(path, model=b"model bytes", **changes):
    with writing_artifact(path) as folder:
        (folder / "model.onnx").write_bytes(model)
        (folder / REFERENCE).write_bytes(b"reference")
        manifest = Manifest(
            variant="retinaface",
            dcn="none",
            precision="fp32",
            format="onnx",
            weights="test",
            model=describe_file(folder / "model.onnx"),
            reference=describe_file(folder / REFERENCE),
            input=InputTensor(shape=(1, 3, 480, 640)),
            outputs=tuple(OutputTensor(name, name, (1, None)) for name in MEANINGS),
            anchors=AnchorSpec((8,), ((16, 32),), (0.1, 0.2)),
            thresholds=Thresholds(),
            runtime=RuntimeSpec("onnxruntime", "1.17"),
            parity=Parity(1e-6, 1e-4, 1e-4, 10, 1),
        )
        write_manifest(folder, msgspec.structs.replace(manifest, **changes))
    return path


def test_what_is_written_is_read_back(tmp_path):
    artifact = open_artifact(write_artifact(tmp_path / "a"))
    assert artifact.name == "a"
    assert artifact.manifest.input.size == (480, 640)
    assert artifact.manifest.outputs[0].shape == (1, None)
    assert artifact.model_path.read_bytes() == b"model bytes"
    layout = open_artifact(write_artifact(tmp_path / "b", input=InputTensor(layout="NHWC", shape=(1, 320, 256, 3)))).manifest.input
    assert layout.size == (320, 256)
    assert open_artifact(write_artifact(tmp_path / "c", input=InputTensor())).manifest.input.size is None


def test_names():
    assert artifact_name("acwface_dcn", "native", "fp32", (640, 640), "onnx") == "acwface_dcn-native-fp32-640-onnx"
    assert artifact_name("retinaface", "none", "fp32", (480, 640), "onnx") == "retinaface-none-fp32-480x640-onnx"
    assert artifact_name("retinaface", "none", "fp32", None, "onnx") == "retinaface-none-fp32-dynamic-onnx"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda fields: fields.update(schema=99), "has schema 99, this version reads up to 1"),
        (lambda fields: fields.pop("anchors"), "missing required field `anchors`"),
        (lambda fields: fields.update(colour="red"), "unknown field `colour`"),
        (lambda fields: fields["input"].update(shape=[1, 3, "wide", 640]), "input.shape"),
        (lambda fields: fields["input"].update(shape=[1, 3, 10**9, 640]), "input.shape"),
        (lambda fields: fields["outputs"][0].update(meaning="magic"), "outputs"),
        (lambda fields: fields["model"].update(name="../../outside.onnx"), "not a plain file name"),
        (lambda fields: fields["model"].update(name=""), "not a plain file name"),
        (lambda fields: fields["model"].update(name=".."), "not a plain file name"),
    ],
)
def test_a_wrong_manifest_is_named(tmp_path, change, said):
    path = write_artifact(tmp_path / "a")
    fields = json.loads((path / MANIFEST).read_text())
    change(fields)
    (path / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(UserError, match=said):
        open_artifact(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff\xfe", "[" * 100_000, '{"schema": 1e400}'])
def test_a_manifest_that_is_no_manifest(tmp_path, text):
    path = write_artifact(tmp_path / "a")
    (path / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="export the artifact again"):
        open_artifact(path)


@pytest.mark.parametrize("name", ["model.onnx", REFERENCE])
def test_a_missing_file_and_a_changed_byte(tmp_path, name):
    path = write_artifact(tmp_path / "a")
    content = bytearray((path / name).read_bytes())
    content[3] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(UserError, match="SHA-256 differs"):
        open_artifact(path)
    (path / name).unlink()
    with pytest.raises(UserError, match="is missing"):
        open_artifact(path)


def test_a_model_file_may_be_a_folder(tmp_path):
    path = write_artifact(tmp_path / "a")
    package = path / "model.mlpackage"
    for name, content in (("Manifest.json", b"{}"), ("Data/b", b"weights"), ("Data/B.bin", b"more"), ("Data.txt", b"")):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(content)
    file = describe_file(package)
    fields = json.loads((path / MANIFEST).read_text())
    fields["model"] = msgspec.to_builtins(file)
    (path / MANIFEST).write_text(json.dumps(fields))
    assert open_artifact(path).model_path.is_dir()
    assert file.size_bytes == 13
    listed = "find . -type f | cut -c3- | LC_ALL=C sort | xargs sha256sum | sha256sum"
    assert subprocess.run(["sh", "-c", listed], cwd=package, capture_output=True, text=True).stdout.split()[0] == file.sha256
    (package / "Data.txt").rename(package / "Other.txt")
    with pytest.raises(UserError, match="SHA-256 differs"):
        open_artifact(path)
    (package / "Other.txt").unlink()
    (package / "Data.txt").symlink_to(path / REFERENCE)
    with pytest.raises(UserError, match="Data.txt is neither file nor folder"):
        open_artifact(path)
    package.rename(tmp_path / "elsewhere")
    package.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="neither file nor folder"):
        open_artifact(path)


def test_no_artifact(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match="is no artifact"):
            open_artifact(path)


def test_a_failure_leaves_the_earlier_artifact(tmp_path):
    path = write_artifact(tmp_path / "a")

    def fail():
        with writing_artifact(path) as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert open_artifact(path).model_path.read_bytes() == b"model bytes"
    write_artifact(path, model=b"newer")
    assert open_artifact(path).model_path.read_bytes() == b"newer"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_somebodys_folder_is_never_replaced(tmp_path):
    holiday = tmp_path / "photos" / "holiday.jpg"
    holiday.parent.mkdir()
    holiday.write_bytes(b"dear to somebody")
    for path in (holiday.parent, holiday):
        with pytest.raises(UserError, match="choose another output folder"):
            write_artifact(path)
    assert holiday.read_bytes() == b"dear to somebody"
    (tmp_path / "empty").mkdir()
    open_artifact(write_artifact(tmp_path / "empty"))


def test_atomic_file_failure_leaves_the_old_one(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")

    def fail():
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
