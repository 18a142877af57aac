"""Every command says by ``--help`` what it does when nothing is said, and shows one call."""

import argparse
import importlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMANDS = (
    "model.__main__",
    "train.__main__",
    "export.__main__",
    "export.kernel.__main__",
    "quantize.__main__",
    "runtime_bench.__main__",
    "docs.numbers",
    "demo_tools.assets",
    "tests.fuzz.__main__",
)

ROOT = Path(__file__).resolve().parents[2]
INTERNAL = {"arm-record", "require-adb", "FORCE"}
"""Targets that others use."""
DERIVED = {"PUBLIC_RETINAFACE"}
"""Variables that nobody sets."""


class Found(Exception):
    """Carries a parser out of the ``main`` that has made it."""


def parser_of(module: str) -> argparse.ArgumentParser:
    def stop(self, *args):
        raise Found(self)

    main = importlib.import_module(module).main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(Found) as found:
            main()
    return found.value.args[0]


@pytest.fixture(params=COMMANDS)
def parser(request) -> argparse.ArgumentParser:
    return parser_of(request.param)


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser itself, or those of its subcommands."""
    commands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in commands:
        for command in action.choices.values():
            yield from leaves(command)
    if not commands:
        yield parser


def complaints(parser: argparse.ArgumentParser) -> list[str]:
    wrong = []
    if not (parser.epilog or "").startswith("example: "):
        wrong.append(f"{parser.prog}: no example")
    for action in parser._actions:
        name = f"{parser.prog} {'/'.join(action.option_strings) or action.dest}"
        said = parser._get_formatter()._expand_help(action) if action.help else ""
        if not said:
            wrong.append(f"{name}: no help")
        elif action.default is not None and action.default is not False and action.default not in ([], argparse.SUPPRESS):
            plain = isinstance(action.default, str | int | float | Path)
            if (f"default: {action.default}" if plain else "default: ") not in said:
                wrong.append(f"{name}: the default, {action.default}, is not shown in {said!r}")
    return wrong


def test_every_command_has_an_example_and_shows_its_defaults(parser):
    assert not [line for command in leaves(parser) for line in complaints(command)]


def test_examples_are_of_the_command_that_shows_them(parser):
    for command in leaves(parser):
        program, _, rest = command.epilog.removeprefix("example: ").partition(" ")
        assert program == "make" or f"{program} {rest}".startswith(command.prog)


def test_what_is_missing_is_found():
    parser = argparse.ArgumentParser(prog="p", epilog="no call")
    parser.add_argument("--size", default=640, help="pixels")
    parser.add_argument("--out", default="a", help="where (default: b)")
    parser.add_argument("--quiet", action="store_true", help="no default to show")
    parser.add_argument("--bare")
    assert [line.partition(":")[0] for line in complaints(parser)] == ["p", "p --size", "p --out", "p --bare"]


def commands_on_pages(program: str) -> list[list[str]]:
    """The words of each command in a code block; of the architecture's page, which adds commands, none."""
    pages = (path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if path.name != "architecture.md")
    lines = (line for path in pages for line in re.findall(rf"^ {{4,}}({re.escape(program)} .*)", path.read_text(), re.MULTILINE))
    return [shlex.split(line, comments=True) for line in dict.fromkeys(lines)]


def test_commands_on_the_pages_are_understood():
    parsers = {command.removesuffix(".__main__"): parser_of(command) for command in COMMANDS}
    commands = [words for words in commands_on_pages(".venv/bin/python -m") if words[2] != "pytest"]
    assert len(commands) > 20
    for _, _, module, *arguments in commands:
        parsers[module].parse_args(arguments)


@pytest.mark.parametrize("words", commands_on_pages("make"), ids=" ".join)
def test_make_has_the_targets_on_the_pages(words, tmp_path):
    tried = subprocess.run([*words, "-n", f"OUT={tmp_path / 'out'}"], cwd=ROOT, capture_output=True, text=True)
    assert tried.returncode == 0, tried.stderr


def test_make_says_that_it_takes_no_space_in_the_folder_that_it_writes_into(tmp_path):
    tried = subprocess.run(
        ["make", "--no-print-directory", "-n", f"OUT={tmp_path}/my results", "export-onnx"], cwd=ROOT, capture_output=True, text=True
    )
    assert (tried.returncode, tried.stdout) == (2, "")
    assert tried.stderr.count("\n") == 1
    assert "make takes no space in a folder that it writes into" in tried.stderr


def test_make_says_that_there_is_no_adb_before_it_exports(tmp_path):
    for tool in ("bash", "python3"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    tried = subprocess.run(
        [shutil.which("make"), "--no-print-directory", "-o", ".venv/.ready", f"OUT={tmp_path}/out", "PY=false", "bench-android"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert tried.returncode == 2
    assert tried.stderr.startswith("error: adb is not installed")


def test_make_help_names_every_target_and_variable():
    makefile = (ROOT / "Makefile").read_text()
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE)) | set(re.findall(r"\$\((?:if|or) \$\(([A-Z_]+)\)", makefile))
    assert variables - {*re.findall(r"\b([A-Z][A-Z_]+)=", shown), *DERIVED} == set()
    targets = set(re.search(r"^\.PHONY: (.*)", makefile, re.MULTILINE)[1].split())
    assert targets - set(re.findall(r"^  make ([a-z-]+) ", shown, re.MULTILINE)) == INTERNAL
