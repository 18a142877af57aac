"""C headers of the runtimes, from Debian packages that are pinned by digest; nothing of them is part of the project.

The wheels of neither runtime carry their C headers. Debian's development packages do, are small, and unpack without root.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from model.errors import UserError

TIMEOUT_S = 60


@dataclass(frozen=True)
class Headers:
    """A Debian package and what of it is wanted."""

    name: str
    """Of the runtime, as errors name it."""
    adapter: str
    """Of :data:`export.kernel.ADAPTERS`: what is built with them."""
    pool: str
    """The package's place in a Debian archive."""
    sha256: str
    prefix: str
    """Folder inside the package that include paths start from."""
    wanted: str
    """Headers under ``prefix`` whose path starts like this."""
    main: str
    """The header that the adapter includes."""
    variable: str
    """CMake's, for headers of one's own."""


HEADERS = (
    Headers(
        "ONNX Runtime",
        "ort",
        "pool/main/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb",
        "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08",
        "usr/include/onnxruntime/",
        "onnxruntime_c_api.h",
        "onnxruntime_c_api.h",
        "ORT_INCLUDE",
    ),
    Headers(
        "LiteRT",
        "litert",
        "pool/main/t/tensorflow/libtensorflow-lite-dev_2.14.1+dfsg-3.1+b1_amd64.deb",
        "fde51ef46a7c3c5f198a69e7e4f1dfd77dcb0f19da469f82bd1e2c38986437bf",
        "usr/include/",
        "tensorflow/lite/core/c/",
        "tensorflow/lite/core/c/common.h",
        "LITERT_INCLUDE",
    ),
)


def include_folder(headers: Headers, folder: Path) -> Path:
    """Where :func:`fetch_headers` keeps them; whether or not they are there."""
    return folder / f"{headers.variable.lower()}-{headers.sha256[:12]}"


def fetch_headers(headers: Headers, folder: Path) -> Path:
    """The include folder, fetched into ``folder`` unless it is there already.

    Raises:
        UserError: the package cannot be had, or is not the one that is pinned.
    """
    include = include_folder(headers, folder)
    if not include.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            _unpack(_download(headers), headers, Path(temporary) / "include")
            (Path(temporary) / "include").replace(include)  # whole or not at all
    return include


def check_headers(headers: Headers, folder: Path) -> Path:
    """A folder that somebody has given, as an absolute path.

    Raises:
        UserError: the header is not in it.
    """
    if not (folder / headers.main).is_file():
        raise UserError(f"{headers.variable}={folder}: no {headers.main} in it")
    return folder.resolve()


def _download(headers: Headers) -> bytes:
    failures = []
    for mirror in _mirrors():
        url = f"{mirror}/{headers.pool}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
                package = response.read()
        except OSError as error:
            failures.append(f"{url}: {error}")
            continue
        if hashlib.sha256(package).hexdigest() == headers.sha256:
            return package
        failures.append(f"{url}: not the file whose digest is pinned")
    why = "; ".join(failures) or "apt knows no Debian mirror"
    raise UserError(
        f"no {headers.name} headers ({why}); set DEBIAN_MIRROR=URL, or give a folder of your own: make native {headers.variable}=DIR"
    )


def _mirrors() -> list[str]:
    """Debian archives: the one that is given, or those that apt uses here."""
    if given := os.environ.get("DEBIAN_MIRROR"):
        return [given.rstrip("/")]
    try:
        listed = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return sorted({line.rstrip("/") for line in listed.splitlines() if line.startswith("http")})


def _unpack(package: bytes, headers: Headers, to: Path) -> None:
    """A .deb is an ar archive with a compressed tar archive in it."""
    position = len(b"!<arch>\n")
    while position < len(package):
        name, size = package[position : position + 16].decode().strip(), int(package[position + 48 : position + 58])
        position += 60
        if name.startswith("data.tar"):
            break
        position += size + size % 2
    with tarfile.open(fileobj=io.BytesIO(package[position : position + size])) as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            inside = path.removeprefix(headers.prefix)
            if not member.isfile() or not (path.endswith("/copyright") or (inside != path and inside.startswith(headers.wanted))):
                continue
            target = to / (Path(path).name if path.endswith("/copyright") else inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.extractfile(member) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
