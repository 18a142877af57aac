import msgspec
import pytest

from demo_tools.assets import DEMOS, install
from model.artifact import MANIFEST, describe_file, write_manifest
from model.errors import UserError
from tests.golden.make_golden import MANIFEST as EXAMPLE


def test_the_app_has_the_folder():
    assert DEMOS["android"].models.is_dir()


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / ".gitignore").write_text("*\n")
    (folder / "notes").mkdir()  # somebody's own
    return folder


def artifact(folder, **changes):
    folder.mkdir()
    (folder / "model.tflite").write_bytes(f"the model of {folder.name}".encode())
    (folder / "reference.safetensors").write_bytes(b"weights")
    files = {"model": describe_file(folder / "model.tflite"), "reference": describe_file(folder / "reference.safetensors")}
    write_manifest(folder, msgspec.structs.replace(EXAMPLE, **files, **changes))
    return folder


def names(models):
    return sorted(path.name for path in models.iterdir())


def test_models_are_replaced_and_nothing_else_is_touched(tmp_path, models):
    first, second = artifact(tmp_path / "first"), artifact(tmp_path / "second")
    install([first, second], "tflite", models)
    assert names(models) == [".gitignore", "first", "notes", "second"]
    assert names(models / "first") == [MANIFEST, "model.tflite"]  # no reference weights
    assert (models / "first" / "model.tflite").read_bytes() == b"the model of first"
    install([second], "tflite", models)
    assert names(models) == [".gitignore", "notes", "second"]


def test_what_cannot_run_is_refused_and_the_old_models_stay(tmp_path, models):
    install([artifact(tmp_path / "good")], "tflite", models)
    changed = artifact(tmp_path / "changed")
    (changed / "model.tflite").write_bytes(b"another model of it")
    anysize = msgspec.structs.replace(EXAMPLE.input, shape=(1, None, None, 3))
    for bad, message in (
        (changed, "SHA-256"),
        (artifact(tmp_path / "onnx", format="onnx"), "runs tflite"),
        (artifact(tmp_path / "dynamic", input=anysize), "any size"),
        (tmp_path / "nothing", "is no artifact"),
    ):
        with pytest.raises(UserError, match=message):
            install([artifact(tmp_path / f"with-{bad.name}"), bad], "tflite", models)
    assert names(models) == [".gitignore", "good", "notes"]


def test_two_artifacts_of_one_name_are_refused(tmp_path, models):
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="one name: same"):
        install([artifact(tmp_path / "same"), artifact(tmp_path / "other" / "same")], "tflite", models)
