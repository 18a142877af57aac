"""What Apple's Objective-C frameworks declare, read from npm's @nativescript/types-ios, to check ``stubs/`` against.

Each declaration in the stubs of such a framework ends with what it stands for:

    // objc -[MLModel predictionFromFeatures:error:]    a method; + for one of the class
    // objc MLModel.modelDescription                     a property
    // objc MLComputeUnits/CPUOnly                       a case of an enumeration
    // objc CVPixelBufferCreate(6)                       a function, with the number of its parameters
    // objc kCVReturnSuccess                             a constant, or a class

``// swift`` marks what only Swift has; it is not checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

DECLARATION = re.compile(r"\b(?:func|var|let|case|init[?!]?)\b")
MARK = re.compile(r"// (?:swift|objc (?P<what>.+))$")
METHOD = re.compile(r"(?P<kind>[-+])\[(?P<owner>\w+) (?P<selector>[\w:]+)\]$")


@dataclass
class Owner:
    """A class or protocol."""

    bases: list[str]
    members: dict[str, float] = field(default_factory=dict)
    """First iOS of each: ``static name`` those of the class itself."""


class Declarations:
    """Of some frameworks.

    Args:
        package: the unpacked npm package.
        frameworks: by name.
    """

    def __init__(self, package: Path, frameworks: list[str]) -> None:
        self.owners: dict[str, Owner] = {}
        self.functions: dict[str, tuple[int, float]] = {}
        self.constants: dict[str, float] = {}
        self.cases: dict[str, set[str]] = {}
        for framework in frameworks:
            self._read((package / "lib" / "ios" / "objc-x86_64" / f"objc!{framework}.d.ts").read_text(encoding="utf-8"))

    def _read(self, text: str) -> None:
        owner, cases, since, owner_since = None, None, 0.0, 0.0
        for line in text.splitlines():
            if found := re.match(r"\s*\* @since ([\d.]+)", line):
                since = version(found[1])
                continue
            if re.match(r"\s*(/\*\*|\*)", line) or not line.strip():
                continue
            if found := re.match(r"(?:declare class|interface) (\w+)(?: extends ([\w, ]+?))?(?: implements ([\w, ]+?))? \{", line):
                bases = [base.strip() for group in found.groups()[1:] if group for base in group.split(",")]
                owner, owner_since = self.owners.setdefault(found[1], Owner(bases)), since
            elif found := re.match(r"declare const enum (\w+) \{", line):
                cases = self.cases.setdefault(found[1], set())
            elif line.startswith("}"):
                owner = cases = None
            elif found := re.match(r"declare function (\w+)\((.*)\): [^()]*;$", line):
                self.functions[found[1]] = (parameters(found[2]), since)
            elif found := re.match(r"declare (?:var|const) (\w+): string", line) or re.match(r"declare (?:var|const) (\w+): number", line):
                self.constants[found[1]] = since
            elif cases is not None and (found := re.match(r"\t(\w+) =", line)):
                cases.add(found[1])
            elif owner is not None and (found := re.match(r"\t(static )?(?:readonly )?(\w+)\??\s*[(:<]", line)):
                owner.members.setdefault((found[1] or "") + found[2], max(since, owner_since))
            since = 0.0

    def since(self, owner: str, member: str) -> float | None:
        """First iOS of a member, inherited ones too; ``None``: there is no such member."""
        if owner not in self.owners:
            return None
        if member in self.owners[owner].members:
            return self.owners[owner].members[member]
        return next((found for base in self.owners[owner].bases if (found := self.since(base, member)) is not None), None)


def version(text: str) -> float:
    """As far as it matters here: major and minor."""
    major, _, rest = text.partition(".")
    return int(major) + int(rest.partition(".")[0] or 0) / 100


def parameters(text: str) -> int:
    """How many there are between the brackets of a declaration, TypeScript's or Swift's: colons that are in no further brackets."""
    depth = count = 0
    for before, character in zip(" " + text, text, strict=False):
        if character in "([{<":
            depth += 1
        elif character in ")]}" or (character == ">" and before not in "-="):
            depth -= 1
        elif character == ":" and depth == 0:
            count += 1
    return count


def swift_parameters(line: str) -> int:
    """Of the function that a line of Swift declares."""
    begin = line.index("(") + 1
    depth = 1
    for at in range(begin, len(line)):
        depth += {"(": 1, ")": -1}.get(line[at], 0)
        if depth == 0:
            return parameters(line[begin:at])
    raise ValueError(line)


def check_line(line: str, declared: Declarations, newest: float) -> str | None:
    """What is wrong with a line of a stub, ``None`` for nothing.

    Args:
        line: of Swift.
        declared: what there is.
        newest: iOS that the app is for; what came later needs a check at run time, which stubs have only for Swift's own.
    """
    mark = MARK.search(line)
    if mark is None:
        return "says not what it stands for" if DECLARATION.search(line.partition("//")[0]) else None
    what = mark["what"]
    if what is None:
        return None
    if method := METHOD.match(what):
        selector = method["selector"]
        first, *rest = selector.rstrip(":").split(":")
        name = first + "".join(part[:1].upper() + part[1:] for part in rest)
        since = declared.since(method["owner"], ("static " if method["kind"] == "+" else "") + name)
        expected = selector.count(":") - selector.endswith("rror:") * ("throws" in line) - selector.endswith("andler:") * ("async" in line)
        actual = swift_parameters(line) if "(" in line.partition("{")[0] else 0
        if expected != actual:
            return f"{actual} parameters in Swift, {selector} has {expected}"
    elif "." in what:
        owner, name = what.split(".")
        found = (declared.since(owner, prefix + name) for prefix in ("", "static "))
        since = next((value for value in found if value is not None), None)
    elif "/" in what:
        owner, name = what.split("/")
        since = 0.0 if name in declared.cases.get(owner, ()) else None
    elif what.endswith(")"):
        name, _, count = what[:-1].partition("(")
        actual, since = declared.functions.get(name, (0, None))
        if since is not None and actual != int(count):
            return f"{name} has {actual} parameters"
    else:
        since = 0.0 if what in declared.owners else declared.constants.get(what)
        if what in declared.cases or any(what in cases for cases in declared.cases.values()):
            since = 0.0
    if since is None:
        return f"no {what}"
    return f"{what} came with iOS {since}" if since > newest else None
