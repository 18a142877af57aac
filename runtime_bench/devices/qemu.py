"""ARM processors under QEMU's user-mode emulation: the ARM builds of the runtimes execute the kernels that they choose for the processor
that is named (its instruction set decides: Cortex-A53 has neither dot products nor matrix instructions, A76 has dot products, A710 both).

What is needed is fetched once into ``build/qemu``, without root: Python and its libraries for ARM, and the emulator, from Debian; ARM
wheels, of the versions installed here, from the Python package index. Debian's own tools (``apt-get``, ``dpkg-deb``) do it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from model.errors import UserError
from model.files import atomic_folder
from runtime_bench.devices.local import run_here
from runtime_bench.roofline import processor

CPUS = ("cortex-a53", "cortex-a76", "cortex-a710")
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
_PROJECT = Path(__file__).resolve().parents[2]
CACHE = _PROJECT / "build" / "qemu"
_MARKER = "recipe.txt"


class Qemu:
    """One processor.

    Args:
        cpu: QEMU's name of it.

    Raises:
        UserError: QEMU has no such processor, or what is missing cannot be fetched.
    """

    def __init__(self, cpu: str) -> None:
        self.name = f"qemu:{cpu}"
        self._cpu = cpu
        self._folder = prepare()
        self.python = (str(self._folder / "root" / "usr" / "bin" / f"python{PYTHON}"),)
        self.workers = os.cpu_count() or 1
        try:
            self.run([*self.python, "-c", ""])
        except UserError as error:
            raise UserError(f"{self.name} cannot be used ({error}); {', '.join(CPUS)} are known to work") from None

    @property
    def _emulator(self) -> Path:
        return self._folder / "qemu-aarch64"

    def describe(self) -> str:
        found = re.search(r"version ([\d.]+)", run_here([self._emulator, "--version"]))
        return f"{self._cpu}, emulated by QEMU {found[1] if found else ''} on {processor()}"

    def push(self, path: Path) -> str:
        return str(path.resolve())  # the emulated program sees this machine's files

    def run(self, command: Sequence[str]) -> str:
        site = os.pathsep.join(str(folder) for folder in (self._folder / "site", _PROJECT))
        environment = {"PYTHONPATH": site, "PYTHONPYCACHEPREFIX": str(self._folder / "pycache"), "OMP_NUM_THREADS": "1"}
        settings = [word for name, value in environment.items() for word in ("-E", f"{name}={value}")]
        return run_here([self._emulator, "-L", self._folder / "root", "-cpu", self._cpu, *settings, *command])

    def pull(self, there: str, here: Path) -> None:
        shutil.copyfile(there, here)


def listed() -> list[tuple[str, str]]:
    """Processors, and whether they can be used."""
    state = "ready" if (_folder() / _MARKER).is_file() else "set up when first used, 0.4 GB"
    return [(f"qemu:{cpu}", f"emulated; no times ({state})") for cpu in CPUS]


def _recipe() -> str:
    """Everything that decides what :func:`prepare` makes."""
    wheels = [f"{name}=={version(name)}" for name in _WHEELS]
    return "\n".join([f"{SUITE}, Python {PYTHON}", *_DEBIAN, *wheels]) + "\n"


def _folder() -> Path:
    return CACHE / hashlib.sha256(_recipe().encode()).hexdigest()[:12]


def prepare() -> Path:
    """The folder with emulator, root and wheels, fetched unless it is there.

    Raises:
        UserError: a tool is missing, or a download fails.
    """
    folder = _folder()
    if (folder / _MARKER).is_file():
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
