"""Everything of the iOS demo that can be checked without a Mac: ``make test-ios``.

Builds and tests ``FaceCore`` with Swift for Linux, also under sanitizers; checks style, texts and the Xcode project; and compiles ``App``
against ``stubs``, whose declarations are compared with Apple's. Swift is installed into a folder of its own, a Debian system that commands
run in by chroot; so this needs root. Of Python the standard library is enough.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from demo_tools.checks import ROOT, Missing, NpmPackage, appearing, debian_mirror, npm_package, run, step
from ios_demo.tools.declarations import Declarations, check_line, version

DEMO = Path(__file__).resolve().parents[1]
TOOLS, OUT = ROOT / "build" / "ios-tools", ROOT / "build" / "ios"

TYPES = NpmPackage(
    "@nativescript/types-ios", "9.1.2", "tIFN3FwKNAbWJs6Ne6fBJ92PD9/z8wcEHHW8OLGqeoqAaKBz2X8433B7e367iewHOrP70wYkStu6M1IhJ7Dj/A=="
)
"""Declarations of Apple's Objective-C frameworks."""

SUITE, SWIFT = "trixie", "6.0"
"""Debian's release, and the Swift in it; its archive is signed."""
PACKAGES = "swiftlang libc6-dev libstdc++-14-dev git"
SWIFT_FORMAT = "/usr/libexec/swift/bin/swift-format"
CLANG = "/usr/libexec/swift/bin/clang"

# Program, and the Debian package that has it.
NEEDED = {"debootstrap": "debootstrap", "npm": "npm", "unshare": "util-linux", "chroot": "coreutils"}

# Modules in the order in which one needs the other.
FRAMEWORKS = ("CoreVideo", "CoreMedia", "CoreGraphics", "ImageIO", "QuartzCore", "Metal", "CoreML", "AVFoundation", "UIKit")
SWIFT_ONLY = ("CryptoKit", "SwiftUI", "PhotosUI")
"""Frameworks that are not Objective-C's: nothing to compare them with."""

ENTER = """
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mkdir -p "$1/project"
mount --bind "$2" "$1/project"
exec chroot "$1" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin $4 bash -euo pipefail -c "cd /project; $3"
"""
"""In a mount namespace of its own: nothing stays mounted, however it ends."""


def inside(system: Path, command: str, **environment: str) -> str:
    """What a shell command prints that runs in ``system``, in the project's folder."""
    variables = " ".join(f"{name}={value}" for name, value in environment.items())
    namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
    try:
        return run(*namespaces, "bash", "-euc", ENTER, "bash", system, ROOT, command, variables)
    except SystemExit:
        raise SystemExit(f"error: in {system.relative_to(ROOT)} failed: {command}") from None


# --- tools ---


def swift_system() -> Path:
    """A Debian system with Swift, made unless it is there."""
    recipe = hashlib.sha256(f"{SUITE} {PACKAGES}".encode()).hexdigest()[:8]
    folder = TOOLS / f"debian-{SUITE}-{recipe}"
    if not folder.is_dir():
        mirror = debian_mirror()
        proxies = {name: value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy", "no_proxy")}
        with appearing(folder) as fresh:
            run("debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, fresh, mirror)
            install = f"apt-get install -qq -y --no-install-recommends {PACKAGES} && apt-get clean"
            inside(fresh, f"apt-get update -qq && {install}", DEBIAN_FRONTEND="noninteractive", **proxies)
    return folder


# --- checks ---


def complain(wrong: Sequence[str]) -> None:
    if wrong:
        raise SystemExit("error: " + "\n".join(wrong))


def check_texts() -> None:
    """Text that people read is in Texts.swift and in the catalog, the same in both, and used."""
    app = {path.name: path.read_text(encoding="utf-8") for path in sorted((DEMO / "App").glob("*.swift"))}
    texts = app.pop("Texts.swift")
    views = r'\b(?:Text|Button|Label|Picker|ShareLink|PhotosPicker|ModelError\(text:|accessibilityLabel|accessibilityHint)\(?\s*".*'
    wrong = [f"{name}: not in Texts.swift: {found}" for name, text in app.items() for found in re.findall(views, text)]
    literals = re.findall(r'localized:\s*"((?:[^"\\]|\\.)*)"', texts)
    catalog = json.loads((DEMO / "App" / "Localizable.xcstrings").read_text(encoding="utf-8"))["strings"]
    # What is put in is a text or a whole number.
    keys = {re.sub(r"\\\((?:[^()]|\([^()]*\))*\)", "%?", literal.replace("%", "%%")) for literal in literals}
    listed = {re.sub(r"%(?:@|lld)", "%?", key) for key in catalog}
    wrong += [f"Localizable.xcstrings has no {key}" for key in sorted(keys - listed)]
    wrong += [f"nothing uses {key} of Localizable.xcstrings" for key in sorted(listed - keys)]
    names = re.findall(r"static (?:func|var) (\w+)", texts)
    everything = "\n".join([*app.values(), *re.findall(r"\{.*?\n", texts)])
    wrong += [f"nothing uses Texts.{name}" for name in names if not re.search(rf"(?:Texts\.|\b){name}\b", everything)]
    complain(wrong)


def check_project(system: Path) -> None:
    """The Xcode project is a property list, of which every reference leads somewhere and every path exists."""
    inside(system, "swiftc -o build/ios/plist ios_demo/tools/plist.swift")
    project = json.loads(inside(system, "build/ios/plist ios_demo/ACWFace.xcodeproj/project.pbxproj"))
    objects = project["objects"]
    identifier = re.compile(r"[0-9A-F]{24}")

    def mentioned(value: object) -> list[str]:
        if isinstance(value, dict):
            return [name for item in value.items() for part in item for name in mentioned(part)]
        if isinstance(value, list):
            return [name for part in value for name in mentioned(part)]
        return [value] if isinstance(value, str) and identifier.fullmatch(value) else []

    used = {name for value in objects.values() for name in mentioned(value)} | {project["rootObject"]}
    wrong = [f"project.pbxproj: nothing is called {name}" for name in sorted(used - objects.keys())]
    wrong += [f"project.pbxproj: nothing mentions {name}" for name in sorted(objects.keys() - used)]
    for value in objects.values():
        path = value.get("relativePath") or (value.get("path") if value.get("sourceTree") == "<group>" else None)
        if path and not (DEMO / path).exists():
            wrong.append(f"project.pbxproj: no {path}")
    wrong += [f"project.pbxproj: no object of kind {kind}" for kind in KINDS if kind not in {value["isa"] for value in objects.values()}]
    complain(wrong)


KINDS = ("PBXFileSystemSynchronizedRootGroup", "PBXNativeTarget", "XCLocalSwiftPackageReference", "XCSwiftPackageProductDependency")


def check_declarations(package: Path) -> None:
    """Each declaration of the Objective-C stubs is one of Apple's, and there since the oldest iOS that the app is for."""
    declared = Declarations(package, [*FRAMEWORKS, "ObjectiveC", "Foundation"])
    project = (DEMO / "ACWFace.xcodeproj" / "project.pbxproj").read_text(encoding="utf-8")
    oldest = version(re.search(r"IPHONEOS_DEPLOYMENT_TARGET = ([\d.]+);", project)[1])
    lines = [
        (f"{name}.swift:{number}", line)
        for name in FRAMEWORKS
        for number, line in enumerate((DEMO / "stubs" / f"{name}.swift").read_text(encoding="utf-8").splitlines(), 1)
    ]
    complain([f"{place}: {problem}" for place, line in lines if (problem := check_line(line, declared, oldest))])
    compared, own = (sum(mark in line for _, line in lines) for mark in ("// objc ", "// swift"))
    print(f"{compared} declarations compared, {own} are Swift's own", flush=True)


def run_tests(system: Path, folder: str, options: str = "", **environment: str) -> None:
    """FaceCore's tests, built into a folder of their own."""
    printed = inside(system, f"swift test --package-path ios_demo/FaceCore --scratch-path build/ios/{folder} {options} 2>&1", **environment)
    print(re.search(r"Test run with [1-9].*", printed)[0], flush=True)


def check_types(system: Path) -> None:
    """FaceCore, and the app against the stubs, as Swift 6; warnings are errors. The stubs are Swift 5, as imported frameworks are."""
    modules, core = "build/ios/modules", "ios_demo/FaceCore/Sources"
    kernel = f"-Xcc -fmodule-map-file={modules}/module.modulemap"
    (ROOT / modules).mkdir(parents=True, exist_ok=True)
    header = f"/project/{core}/AcwfaceKernel/include/deform.h"
    (ROOT / modules / "module.modulemap").write_text(f'module AcwfaceKernel {{ header "{header}" export * }}\n')
    library = "swiftc -parse-as-library -emit-module"
    commands = [
        f"{library} -swift-version 5 -suppress-warnings -module-name {name} -I {modules} -emit-module-path {modules}/{name}.swiftmodule "
        f"ios_demo/stubs/{name}.swift"
        for name in ("CoreTypes", *FRAMEWORKS, *SWIFT_ONLY)
    ]
    commands += [
        f"{library} -swift-version 6 -warnings-as-errors -module-name FaceCore {kernel} -emit-module-path {modules}/FaceCore.swiftmodule "
        f"{core}/FaceCore/*.swift",
        f"swiftc -typecheck -swift-version 6 -warnings-as-errors -parse-as-library -module-name ACWFace -I {modules} {kernel} "
        "ios_demo/App/*.swift ios_demo/stubs/Foundation.swift",
    ]
    for command in commands:
        inside(system, command)


def check_metal(system: Path) -> None:
    """The custom layer's Metal code, as C++, against the golden vectors. How Core ML's textures hold arrays, this cannot tell."""
    cases = json.loads((ROOT / "tests" / "golden" / "deform.json").read_text(encoding="utf-8"))["cases"]
    numbers = [
        number
        for case in cases
        for number in (*case["size"], case["channels"], case["offset_limit"], case["negative_slope"])
        + tuple(value for name in ("predicted", "mixed", "bias") for value in case[name])
    ]
    (OUT / "layers.txt").write_text(" ".join(map(str, numbers)))
    options = "-std=c++17 -O1 -Wall -Wno-unknown-attributes -I ios_demo/stubs/metal"
    inside(system, f"{CLANG}++ {options} ios_demo/tools/run_metal.cpp -o build/ios/run_metal")
    actual = [float(word) for word in inside(system, "build/ios/run_metal < build/ios/layers.txt").split()]
    expected = [value for case in cases for value in case["out"]]
    different = sum(not abs(one - other) <= 1e-4 * max(1, abs(other)) for one, other in zip(actual, expected, strict=True))
    if different:
        raise SystemExit(f"error: DeformSample.metal gives {different} of {len(expected)} values that are not torchvision's")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--missing", action="store_true", help="only name the Debian packages that are missing, for scripts that install them"
    )
    parser.add_argument("--tools", action="store_true", help="only make and fetch what is needed")
    arguments = parser.parse_args()
    packages = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    if arguments.missing:
        print(" ".join(packages))
        return
    if os.geteuid() != 0:
        raise Missing("Swift is installed into a Debian system of its own, for which debootstrap and chroot need root; run it as root")
    if packages:
        raise Missing(f"Debian packages are missing; as root: apt-get install --no-install-recommends {' '.join(packages)}")
    start = time.perf_counter()
    with step("tools"):
        types = npm_package(TYPES, TOOLS)
        system = swift_system()
    if arguments.tools:
        return
    OUT.mkdir(parents=True, exist_ok=True)
    with step("style"):
        found = re.search(r"Swift version \S+", inside(system, "swift --version 2>&1"))[0]
        if not found.startswith(f"Swift version {SWIFT}."):
            raise SystemExit(f"error: {found}, not {SWIFT}; delete {system.relative_to(ROOT)}")
        inside(system, f"cd ios_demo && {SWIFT_FORMAT} lint --strict --recursive App FaceCore tools")
        sources = "ios_demo/App ios_demo/FaceCore ios_demo/stubs"
        inside(system, f"swiftc -parse -parse-as-library $(find {sources} -name '*.swift' -not -path '*/.build/*')")
        check_texts()
    with step("project"):
        check_project(system)
    with step("tests"):
        run_tests(system, "debug")
    with step("types"):
        check_declarations(types)
        check_types(system)
    with step("address and undefined-behaviour sanitizers"):
        # XCTest itself leaks.
        options = "-Xcc -fsanitize=undefined,float-cast-overflow -Xcc -fno-sanitize-recover=all"
        run_tests(system, "address", f"--sanitize=address {options}", ASAN_OPTIONS="detect_leaks=0")
    with step("thread sanitizer"):
        run_tests(system, "thread", "--sanitize=thread")
    with step("Metal code, as C++"):
        check_metal(system)
    print(f"all checks passed in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except Missing as error:
        raise SystemExit(f"error: {error}") from None
