import json
import re

import msgspec
import pytest

from demo_tools.assets import DEMOS, install
from export.coreml_custom import CLASS
from export.coreml_export import LAYER
from model.artifact import MANIFEST, describe_file, write_manifest
from model.errors import UserError
from model.files import sha256
from tests.golden.make_golden import MANIFEST as EXAMPLE

DEMO = DEMOS["ios"].models.parent


def artifact(folder):
    """With a package, as Core ML's are."""
    data = folder / "model.mlpackage" / "Data"
    data.mkdir(parents=True)
    (data / "model.mlmodel").write_bytes(b"layers")
    (folder / "model.mlpackage" / "Manifest.json").write_text("{}")
    (folder / "reference.safetensors").write_bytes(b"weights")
    files = {"model": describe_file(folder / "model.mlpackage"), "reference": describe_file(folder / "reference.safetensors")}
    write_manifest(folder, msgspec.structs.replace(EXAMPLE, format="coreml", **files))
    return folder


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def test_packages_are_copied_whole(tmp_path, models):
    install([artifact(tmp_path / "first")], "coreml", models)
    install([artifact(tmp_path / "second")], "coreml", models)
    assert [path.name for path in models.iterdir()] == ["second"]
    assert sorted(path.name for path in (models / "second").iterdir()) == [MANIFEST, "model.mlpackage"]
    digest = json.loads((models / "second" / MANIFEST).read_text())["model"]["sha256"]
    assert sha256(models / "second" / "model.mlpackage") == digest


def test_a_package_with_another_file_is_refused(tmp_path, models):
    changed = artifact(tmp_path / "changed")
    (changed / "model.mlpackage" / "Data" / "more").write_bytes(b"")
    linked = artifact(tmp_path / "linked")
    (linked / "model.mlpackage" / "link").symlink_to("/etc")
    for bad, message in ((changed, "SHA-256"), (linked, "neither file nor folder")):
        with pytest.raises(UserError, match=message):
            install([bad], "coreml", models)
    with pytest.raises(UserError, match="is coreml; the app runs tflite"):
        install([artifact(tmp_path / "other")], "tflite", models)
    assert not list(models.iterdir())


def test_the_app_has_the_layer_that_exports_name():
    source = (DEMO / "App" / "DeformSampleLayer.swift").read_text()
    assert f"@objc({CLASS})" in source
    # coreml_custom's bindings
    assert set(re.findall(r'parameters\["(\w+)"\]', source)) == {"channels", "offset_limit", "negative_slope"}
    assert f'"{LAYER.name}"' in (DEMO / "FaceCore" / "Sources" / "FaceCore" / "Compatibility.swift").read_text()


def test_the_app_has_the_folder():
    assert DEMOS["ios"].models.is_dir()
