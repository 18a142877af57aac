"""Builds the kernel's libraries with CMake: for this machine, and for others where their compilers are at hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.kernel import ADAPTERS, NATIVE, SOURCES, host
from export.kernel.headers import HEADERS
from model.errors import UserError

CROSS_COMPILER = "aarch64-linux-gnu-gcc"


@dataclass(frozen=True)
class Target:
    """What libraries are built for."""

    name: str
    options: tuple[str, ...] = ()
    """CMake's."""


def targets() -> tuple[list[Target], list[str]]:
    """What this machine can build for, and a line for each that it cannot."""
    found, missing = [Target(host())], []
    if host() != "linux-aarch64":
        if shutil.which(CROSS_COMPILER):
            options = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_C_COMPILER={CROSS_COMPILER}")
            found.append(Target("linux-aarch64", options))
        else:
            missing.append(f"linux-aarch64: no {CROSS_COMPILER} (Debian: apt install gcc-aarch64-linux-gnu)")
    ndk = os.environ.get("ANDROID_NDK")
    if ndk:
        toolchain = Path(ndk) / "build" / "cmake" / "android.toolchain.cmake"
        if not toolchain.is_file():
            raise UserError(f"ANDROID_NDK={ndk}: no {toolchain.relative_to(ndk)} in it")
        options = (f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", "-DANDROID_ABI=arm64-v8a", "-DANDROID_PLATFORM=android-24")
        found.append(Target("android-arm64-v8a", options))
    else:
        missing.append("android-arm64-v8a: ANDROID_NDK is not set")
    return found, missing


def build(target: Target, out: Path, includes: Sequence[str] = (), programs: Sequence[str] = (), options: Sequence[str] = ()) -> list[Path]:
    """Build one target and put its libraries into ``out``; what else the compiler makes stays in ``out/obj``.

    Args:
        includes: ``ORT_INCLUDE=DIR``, ``LITERT_INCLUDE=DIR``: the adapters to build beside the bare kernel.
        programs: build these of ``CMakeLists.txt``, and no libraries.
        options: more for CMake.

    Raises:
        UserError: no CMake, no compiler, or sources that do not compile.
    """
    # Also one that pip has put beside this interpreter.
    cmake = shutil.which("cmake", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]))
    if cmake is None:
        raise UserError("no cmake; install 3.18 or newer (Debian: apt install cmake; or: .venv/bin/pip install cmake)")
    if not target.options and not any(shutil.which(compiler) for compiler in (os.environ.get("CC", "cc"), "gcc", "clang")):
        raise UserError("no C compiler; install one (Debian: apt install gcc) or set CC")
    objects = out / "obj"
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    defines = [f"-D{include}" for include in (*(f"{headers.variable}=" for headers in HEADERS), *includes)]  # none left of an earlier run
    cache = objects / "CMakeCache.txt"
    if cache.exists() and f"CMAKE_HOME_DIRECTORY:INTERNAL={SOURCES}\n" not in cache.read_text(errors="replace"):
        shutil.rmtree(objects)  # the project was moved or copied, which CMake refuses
    _run(cmake, "-S", str(SOURCES), "-B", str(objects), *generator, *target.options, *defines, *options)
    _run(cmake, "--build", str(objects), "--parallel", str(os.cpu_count() or 1), *(("--target", *programs) if programs else ()))
    if programs:
        return []
    wanted = ["kernel", *(headers.adapter for headers in HEADERS if any(include.startswith(headers.variable) for include in includes))]
    libraries = []
    for name in ("kernel", *ADAPTERS):
        for built in objects.glob(f"libacwface_{name}.*"):
            copy = out / built.name
            if name not in wanted:  # left by an earlier run, of older sources
                copy.unlink(missing_ok=True)
                continue
            temporary = copy.with_suffix(".tmp")
            shutil.copy2(built, temporary)
            temporary.replace(copy)  # a process that has the old one loaded keeps it
            libraries.append(copy)
    return libraries


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line for line in (result.stdout + result.stderr).splitlines() if "error" in line.lower()] or [result.stderr.strip()]
        raise UserError(f"{' '.join(command[:4])} ... failed: {lines[0]}")


def describe(library: Path) -> str:
    """A line for people: the file, and what loads it."""
    runtime = next((name for key, name in ADAPTERS.items() if f"_{key}." in library.name), "the tests")
    return f"{library.relative_to(NATIVE.parents[1])}  {library.stat().st_size / 1000:.0f} kB, for {runtime}"
