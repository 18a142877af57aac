"""What the checks of both demos need: steps, commands, and tools that are fetched once. Python's standard library is enough."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""Of the project."""


class Missing(Exception):
    """Something that this program cannot get by itself; the message says how to."""


@dataclass(frozen=True)
class NpmPackage:
    name: str
    version: str
    sha512: str
    """As npm writes it: base64."""


@contextmanager
def step(name: str) -> Iterator[None]:
    start = time.perf_counter()
    print(f"{name} ...", flush=True)
    yield
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


def run(*command: object, **options: object) -> str:
    """What it prints; with its own words on our stderr, and the end of this program, where it fails."""
    words = [str(word) for word in command]
    finished = subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if finished.returncode:
        print(finished.stdout, file=sys.stderr)
        raise SystemExit(f"error: {Path(words[0]).name} failed, exit code {finished.returncode}")
    return finished.stdout


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` when the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        fresh = Path(temporary) / "fresh"
        fresh.mkdir()
        yield fresh
        fresh.rename(folder)


def npm_package(package: NpmPackage, tools: Path) -> Path:
    """Its folder in ``tools``, fetched unless it is there."""
    folder = tools / f"{package.name.replace('/', '-').lstrip('@')}-{package.version}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as temporary:
            try:
                subprocess.run(
                    ["npm", "pack", "--silent", f"{package.name}@{package.version}"], cwd=temporary, check=True, capture_output=True
                )
            except subprocess.CalledProcessError as error:
                last = (error.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
                raise Missing(f"npm cannot fetch {package.name} {package.version}: {last}; is there a network?") from None
            archive = next(Path(temporary).glob("*.tgz"))
            check_digest(archive.read_bytes(), "sha512", package.sha512, package.name)
            with appearing(folder) as fresh, tarfile.open(archive) as members:
                # Python before 3.11.4 has no filters; the archive is the one that is pinned.
                members.extractall(fresh, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder / "package"


def check_digest(data: bytes, algorithm: str, expected: str, name: str) -> None:
    digest = hashlib.new(algorithm, data)
    if expected not in (digest.hexdigest(), base64.b64encode(digest.digest()).decode()):
        raise Missing(f"{name} is not the file whose digest is pinned")


def debian_mirror() -> str:
    """The one that apt uses here."""
    mirror = os.environ.get("DEBIAN_MIRROR")
    if mirror:
        return mirror.rstrip("/")
    try:
        listed = subprocess.run(
            ["apt-get", "--print-uris", "download", "zipalign"], capture_output=True, text=True, check=True, cwd="/"
        ).stdout
        return re.match(r"'(\S+?)/pool/", listed).group(1)
    except (OSError, subprocess.CalledProcessError, AttributeError):
        raise Missing("apt knows no Debian mirror; run: apt-get update, or set DEBIAN_MIRROR to the address of one") from None
