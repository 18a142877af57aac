"""Python and the runtimes for ARM, in a folder that any 64-bit ARM Linux can run them from, a phone's too; and QEMU.

They are fetched once into ``build/qemu``, without root: Python and its libraries for ARM, and the emulator, from Debian; ARM wheels, of the
versions installed here, from the Python package index. Debian's own tools (``apt-get``, ``dpkg-deb``) do it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from model.errors import UserError
from model.files import atomic_folder
from runtime_bench.devices.local import run_here

SUITE, PYTHON = "trixie", "3.13"
"""Debian's release, and the Python that it has. Its QEMU is 10.0; 7.2, of the release before, computes integer kernels wrongly."""
_DEBIAN = (f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libstdc++6")
_WHEELS = (
    *("ai-edge-litert", "backports-strenum", "flatbuffers", "msgspec", "numpy"),
    *("onnxruntime", "packaging", "pillow", "protobuf", "typing-extensions"),
)
"""What :mod:`runtime_bench.forward` imports."""
_GLIBC = (28, 27, 17)
"""Of the wheels' platform tags, those that the runtimes use."""
PROJECT = Path(__file__).resolve().parents[2]
CACHE = PROJECT / "build" / "qemu"
_MARKER = "recipe.txt"


def _recipe() -> str:
    """Everything that decides what :func:`prepare_arm` makes."""
    wheels = [f"{name}=={version(name)}" for name in _WHEELS]
    return "\n".join([f"{SUITE}, Python {PYTHON}", *_DEBIAN, *wheels]) + "\n"


def arm_folder() -> Path:
    """With ``root``, a Debian in part; ``site``, the packages; and ``qemu-aarch64``. Whether or not it is there."""
    return CACHE / hashlib.sha256(_recipe().encode()).hexdigest()[:12]


def is_prepared() -> bool:
    return (arm_folder() / _MARKER).is_file()


def prepare_arm() -> Path:
    """:func:`arm_folder`, fetched unless it is there.

    Raises:
        UserError: a tool is missing, or a download fails.
    """
    folder = arm_folder()
    if is_prepared():
        return folder
    for tool, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("dpkg", "dpkg")):
        if shutil.which(tool) is None:
            raise UserError(f"ARM is emulated with what Debian's {tool} fetches, and there is none here (package {package})")
    print("fetching what emulating ARM needs (90 MB from Debian, 50 MB of wheels) ...", file=sys.stderr, flush=True)
    with atomic_folder(folder, marker=_MARKER) as fresh:
        _fetch_debian(fresh)
        _fetch_wheels(fresh / "site")
        (fresh / _MARKER).write_text(_recipe())
    return folder


def _fetch_debian(folder: Path) -> None:
    """``root`` and ``qemu-aarch64``; apt works on a state of its own, in which nothing is installed yet."""
    state = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True)
    (state / "status").touch()
    # apt checks the archive's signature by this, whatever the address.
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (state / "sources.list").write_text(f"deb [signed-by={keys}] {_mirror()} {SUITE} main\n")
    here = run_here(["dpkg", "--print-architecture"]).strip()
    settings = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "APT::Architecture": "arm64",
        "APT::Architectures": f"arm64,{here}",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    run_here([*apt, "update"])
    run_here([*apt, "--yes", "--no-install-recommends", "--download-only", "install", *_DEBIAN, f"qemu-user:{here}"])
    root, emulator = folder / "root", state / "emulator"
    for package in sorted((state / "cache" / "archives").glob("*.deb")):
        run_here(["dpkg-deb", "-x", package, emulator if package.name.startswith("qemu-user_") else root])
    (root / "lib").symlink_to("usr/lib")  # as the package base-files would
    shutil.move(emulator / "usr" / "bin" / "qemu-aarch64", folder / "qemu-aarch64")
    shutil.rmtree(state)


def _mirror() -> str:
    """A Debian archive: the one that is given, or that apt uses here."""
    if given := os.environ.get("DEBIAN_MIRROR"):
        return given.rstrip("/")
    uris = run_here(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split()
    archives = sorted({uri.rstrip("/") for uri in uris if uri.rstrip("/").endswith("/debian")})
    if not archives:
        raise UserError("apt knows no Debian archive; set DEBIAN_MIRROR to the address of one")
    return archives[0]


def _fetch_wheels(site: Path) -> None:
    wheels = [line for line in _recipe().splitlines() if "==" in line]
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in _GLIBC] + ["--platform=manylinux2014_aarch64"]
    tags = ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}", f"--abi=cp{PYTHON.replace('.', '')}"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    run_here([sys.executable, "-m", "pip", "install", *quiet, *tags, *platforms, f"--target={site}", *wheels])
