"""An Android API jar to compile against, made from the platform's own list of its public API (``api/current.txt``, signature format 2.0).

Google's android.jar cannot be had without its licence and its servers; the list is in Debian's source package of the platform. What is
made has every public class, method, field and constant with its types, generics and nullness, and no code: enough for compilers and D8.
"""

from __future__ import annotations

import re
import struct
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

PUBLIC, PRIVATE, PROTECTED, STATIC, FINAL, VARARGS, INTERFACE, ABSTRACT, ANNOTATION, ENUM = (
    1,
    2,
    4,
    8,
    16,
    0x80,
    0x200,
    0x400,
    0x2000,
    0x4000,
)
FLAGS = {"public": PUBLIC, "protected": PROTECTED, "private": PRIVATE, "static": STATIC, "final": FINAL, "abstract": ABSTRACT}
PRIMITIVES = {"void": "V", "boolean": "Z", "byte": "B", "char": "C", "short": "S", "int": "I", "long": "J", "float": "F", "double": "D"}
MODIFIERS = {*FLAGS, "default", "native", "synchronized", "transient", "volatile", "strictfp", "sealed"}
NULLNESS = {"@NonNull": "Landroidx/annotation/NonNull;", "@Nullable": "Landroidx/annotation/Nullable;"}
CLASS_FILE = 52  # Java 8

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|\.\.\.|@?[\w$.]*[\w$]|-?[\d.]+\w*|[^\s\w]')


@dataclass
class Type:
    name: str
    arguments: list[Type] = field(default_factory=list)
    dimensions: int = 0
    bound: str = ""
    """``extends`` or ``super`` of a wildcard, whose name is ``?`` and whose only argument is the bound."""


@dataclass
class Member:
    kind: str
    name: str
    flags: int
    variables: list[tuple[str, list[Type]]]
    type: Type
    annotations: list[str]
    parameters: list[tuple[list[str], Type]] = field(default_factory=list)
    throws: list[Type] = field(default_factory=list)
    value: str | None = None


@dataclass
class Class:
    name: str
    """As the virtual machine has it: ``android/view/View$OnClickListener``."""
    flags: int
    variables: list[tuple[str, list[Type]]]
    parent: Type
    interfaces: list[Type]
    deprecated: bool
    members: list[Member] = field(default_factory=list)


class Reader:
    """The tokens of one line."""

    def __init__(self, line: str) -> None:
        self.tokens = TOKEN.findall(line)
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def taken(self, token: str) -> bool:
        if self.peek() != token:
            return False
        self.at += 1
        return True

    def skip_parentheses(self) -> None:
        depth = 0
        while True:
            depth += {"(": 1, ")": -1}.get(self.take(), 0)
            if not depth:
                return

    def annotations(self) -> list[str]:
        found = []
        while self.peek().startswith("@") and self.peek() != "@interface":
            found.append(self.take())
            if self.peek() == "(":
                self.skip_parentheses()
        return found

    def modifiers(self) -> int:
        flags = 0
        while self.peek() in MODIFIERS:
            word = self.take()
            flags |= FLAGS.get(word, 0)
            if word == "default":
                flags |= 1 << 16  # not the virtual machine's: an interface's method with a body
        return flags

    def variables(self) -> list[tuple[str, list[Type]]]:
        found = []
        if self.taken("<"):
            while not self.taken(">"):
                name, bounds = self.take(), []
                if self.taken("extends"):
                    bounds.append(self.type())
                    while self.taken("&"):
                        bounds.append(self.type())
                found.append((name, bounds))
                self.taken(",")
        return found

    def type(self) -> Type:
        self.annotations()
        type = Type(self.take())
        if type.name == "?":
            if self.peek() in ("extends", "super"):
                type.bound = self.take()
                type.arguments = [self.type()]
            return type
        if self.taken("<"):
            while not self.taken(">"):
                type.arguments.append(self.type())
                self.taken(",")
            if self.peek().startswith("."):  # a class within a generic one
                type.name += self.take()
                while self.peek() and (self.peek()[0].isalpha() or self.peek() == "."):
                    type.name += self.take()
        while self.peek() in ("[", "..."):
            if self.take() == "[":
                self.take()
            type.dimensions += 1
        return type


def internal(name: str) -> str:
    """``android.view.View.OnClickListener`` to ``android/view/View$OnClickListener``: packages are in lower case, classes are not."""
    parts = name.split(".")
    first = next((index for index, part in enumerate(parts) if part[:1].isupper()), len(parts) - 1)
    package = parts[:first] or ["java", "lang"]
    return "/".join([*package, "$".join(parts[first:])])


class ClassFile:
    """Writes one class (Java Virtual Machine Specification, chapter 4)."""

    def __init__(self, source: Class, known: dict[str, Class]) -> None:
        self.source, self.known = source, known
        self.pool: dict[tuple, int] = {}
        self.pool_bytes: list[bytes] = []
        self.pool_size = 1
        self.scope: list[dict[str, list[Type]]] = []

    # --- constants ---

    def constant(self, key: tuple, data: bytes, slots: int = 1) -> int:
        if key not in self.pool:
            self.pool[key] = self.pool_size
            self.pool_bytes.append(data)
            self.pool_size += slots
        return self.pool[key]

    def text(self, value: str) -> int:
        encoded = value.encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")
        return self.constant(("text", value), struct.pack(">BH", 1, len(encoded)) + encoded)

    def class_(self, name: str) -> int:
        return self.constant(("class", name), struct.pack(">BH", 7, self.text(name)))

    def value(self, type: Type, literal: str) -> int | None:
        if type.dimensions:
            return None
        if type.name in ("String", "java.lang.String"):
            string = literal[1:-1].encode("latin-1", "backslashreplace").decode("unicode_escape")
            return self.constant(("string", string), struct.pack(">BH", 8, self.text(string)))
        special = {
            "(0.0f/0.0f)": "nan",
            "(1.0f/0.0f)": "inf",
            "(-1.0f/0.0f)": "-inf",
            "(0.0/0.0)": "nan",
            "(1.0/0.0)": "inf",
            "(-1.0/0.0)": "-inf",
        }
        if type.name in ("float", "double"):
            number = float(special.get(literal, literal.rstrip("fFdD")))
            if type.name == "float":
                return self.constant(("float", literal), struct.pack(">Bf", 4, number))
            return self.constant(("double", literal), struct.pack(">Bd", 6, number), 2)
        if type.name == "long":
            return self.constant(("long", literal), struct.pack(">Bq", 5, int(literal.rstrip("lL"))), 2)
        if type.name in ("int", "short", "byte", "char", "boolean"):
            number = {"true": 1, "false": 0}.get(literal)
            if number is None:
                number = int(literal) if literal.lstrip("-").isdigit() else ord(literal[1:-1].encode().decode("unicode_escape"))
            return self.constant(("int", number), struct.pack(">Bi", 3, number))
        return None

    # --- types ---

    def bounds(self, name: str) -> list[Type] | None:
        return next((variables[name] for variables in reversed(self.scope) if name in variables), None)

    def descriptor(self, type: Type) -> str:
        bounds = self.bounds(type.name)
        if type.name in PRIMITIVES:
            erased = PRIMITIVES[type.name]
        elif bounds is None:
            self.class_(internal(type.name))  # so that it is listed among the nested ones
            erased = f"L{internal(type.name)};"
        else:
            erased = self.descriptor(bounds[0]) if bounds else "Ljava/lang/Object;"
        return "[" * type.dimensions + erased

    def signature(self, type: Type) -> str:
        if type.name == "?":
            return {"": "*", "extends": "+", "super": "-"}[type.bound] + "".join(map(self.signature, type.arguments))
        if type.name in PRIMITIVES:
            core = PRIMITIVES[type.name]
        elif self.bounds(type.name) is not None:
            core = f"T{type.name};"
        else:
            self.class_(internal(type.name))
            arguments = "".join(map(self.signature, type.arguments))
            core = f"L{internal(type.name)}{f'<{arguments}>' if arguments else ''};"
        return "[" * type.dimensions + core

    def variables_signature(self, variables: list[tuple[str, list[Type]]]) -> str:
        parts = []
        for name, bounds in variables:
            described = "".join(
                (":" if index or not self.is_interface(bound) else "::") + self.signature(bound) for index, bound in enumerate(bounds)
            )
            parts.append(name + (described or ":Ljava/lang/Object;"))
        return f"<{''.join(parts)}>" if parts else ""

    def is_interface(self, type: Type) -> bool:
        known = self.known.get(internal(type.name))
        return known is not None and bool(known.flags & INTERFACE)

    # --- attributes ---

    def attribute(self, name: str, data: bytes) -> bytes:
        return struct.pack(">HI", self.text(name), len(data)) + data

    def annotation(self, annotations: list[str]) -> bytes:
        named = [NULLNESS[name] for name in annotations if name in NULLNESS]
        return struct.pack(">H", len(named)) + b"".join(struct.pack(">HH", self.text(name), 0) for name in named)

    def common(self, annotations: list[str], signature: str | None) -> list[bytes]:
        attributes = []
        if signature is not None:
            attributes.append(self.attribute("Signature", struct.pack(">H", self.text(signature))))
        if any(name in NULLNESS for name in annotations):
            attributes.append(self.attribute("RuntimeInvisibleAnnotations", self.annotation(annotations)))
        if "@Deprecated" in annotations:
            attributes.append(self.attribute("Deprecated", b""))
        return attributes

    # --- members ---

    def field(self, member: Member) -> bytes:
        descriptor, signature = self.descriptor(member.type), self.signature(member.type)
        attributes = self.common(member.annotations, signature if signature != descriptor else None)
        value = self.value(member.type, member.value) if member.value is not None else None
        if value is not None:
            attributes.append(self.attribute("ConstantValue", struct.pack(">H", value)))
        return self.member(member.flags, member.name, descriptor, attributes)

    def method(self, member: Member) -> bytes:
        self.scope.append(dict(member.variables))
        parameters = [type for _, type in member.parameters]
        descriptor = f"({''.join(map(self.descriptor, parameters))}){self.descriptor(member.type)}"
        signature = f"({''.join(map(self.signature, parameters))}){self.signature(member.type)}"
        attributes = self.common(
            member.annotations,
            self.variables_signature(member.variables) + signature if member.variables or signature != descriptor else None,
        )
        if member.throws:
            thrown = [self.class_(self.descriptor(type)[1:-1]) for type in member.throws]
            attributes.append(self.attribute("Exceptions", struct.pack(f">{1 + len(thrown)}H", len(thrown), *thrown)))
        if any(name in NULLNESS for annotations, _ in member.parameters for name in annotations):
            described = b"".join(self.annotation(annotations) for annotations, _ in member.parameters)
            attributes.append(self.attribute("RuntimeInvisibleParameterAnnotations", struct.pack(">B", len(parameters)) + described))
        self.scope.pop()
        return self.member(member.flags, member.name, descriptor, attributes)

    def member(self, flags: int, name: str, descriptor: str, attributes: list[bytes]) -> bytes:
        head = struct.pack(">HHHH", flags & 0xFFFF, self.text(name), self.text(descriptor), len(attributes))
        return head + b"".join(attributes)

    def write(self) -> bytes:
        source = self.source
        self.scope.append(dict(source.variables))
        own, parent = self.class_(source.name), self.class_(self.descriptor(source.parent)[1:-1])
        interfaces = [self.class_(self.descriptor(type)[1:-1]) for type in source.interfaces]
        fields = [self.field(member) for member in source.members if member.kind == "field"]
        methods = [self.method(member) for member in source.members if member.kind == "method"]
        attributes = [self.attribute("Deprecated", b"")] if source.deprecated else []
        if source.variables or source.parent.arguments or any(type.arguments for type in source.interfaces):
            signature = self.variables_signature(source.variables) + "".join(map(self.signature, [source.parent, *source.interfaces]))
            attributes.append(self.attribute("Signature", struct.pack(">H", self.text(signature))))
        attributes.append(self.nested())
        body = struct.pack(f">HHHH{len(interfaces)}H", source.flags & 0xFFFF, own, parent, len(interfaces), *interfaces)
        for group in (fields, methods, attributes):
            body += struct.pack(">H", len(group)) + b"".join(group)
        return struct.pack(">IHHH", 0xCAFEBABE, 0, CLASS_FILE, self.pool_size) + b"".join(self.pool_bytes) + body

    def nested(self) -> bytes:
        """Every class within a class that this one is, has or names."""
        names = {key[1] for key in self.pool if key[0] == "class" and "$" in key[1]}
        names |= {name for name in self.known if name.rpartition("$")[0] == self.source.name}
        for name in list(names):
            while "$" in (name := name.rpartition("$")[0]):
                names.add(name)
        rows = []
        for name in sorted(names):
            outer, _, simple = name.rpartition("$")
            flags = self.known[name].flags if name in self.known else PUBLIC | STATIC
            rows.append(struct.pack(">HHHH", self.class_(name), self.class_(outer), self.text(simple), flags & 0xFFFF))
        return self.attribute("InnerClasses", struct.pack(">H", len(rows)) + b"".join(rows))


def read_class(line: str, package: str) -> Class:
    reader = Reader(line)
    annotations, flags = reader.annotations(), reader.modifiers()
    kind, name, variables = reader.take(), internal(f"{package}.{reader.take()}"), reader.variables()
    parents, interfaces = [], []
    while reader.peek() in ("extends", "implements"):
        into = interfaces if reader.take() == "implements" or kind == "interface" else parents
        while reader.peek() not in ("extends", "implements", "{"):
            into.append(reader.type())
            reader.taken(",")
    parent = parents[0] if parents else Type("java.lang.Object")
    if kind in ("interface", "@interface"):
        flags |= INTERFACE | ABSTRACT
    if kind == "@interface":
        flags |= ANNOTATION
        interfaces = [Type("java.lang.annotation.Annotation")]
    if kind == "enum":
        flags |= ENUM | FINAL
        parent = Type("java.lang.Enum", [Type(name.replace("/", ".").replace("$", "."))])
    return Class(name, flags, variables, parent, interfaces, "@Deprecated" in annotations)


def read_member(line: str, owner: Class) -> Member:
    reader = Reader(line)
    kind = reader.take()
    annotations, flags = reader.annotations(), reader.modifiers()
    if kind in ("field", "enum_constant"):
        type, name = reader.type(), reader.take()
        value = None
        if reader.taken("="):
            start = line.index(" = ") + 3
            value = re.match(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|[^;]*', line[start:]).group().strip()
        return Member("field", name, flags | (ENUM if kind == "enum_constant" else 0), [], type, annotations, value=value)
    variables = reader.variables()
    if kind == "ctor":
        type, name = Type("void"), "<init>"
        reader.take()
    else:
        annotations += reader.annotations()
        type, name = reader.type(), reader.take()
    reader.take()
    parameters = []
    while not reader.taken(")"):
        on_parameter = reader.annotations()
        parameter = reader.type()
        if reader.peek() not in (",", ")"):
            reader.take()  # its name
        parameters.append((on_parameter, parameter))
        reader.taken(",")
    throws = []
    if reader.taken("throws"):
        while reader.peek() not in (";", ""):
            throws.append(reader.type())
            reader.taken(",")
    if "..." in line and parameters and parameters[-1][1].dimensions:
        flags |= VARARGS
    if owner.flags & INTERFACE and not flags & (STATIC | 1 << 16):
        flags |= ABSTRACT
    return Member("method", name, flags, variables, type, annotations, parameters, throws)


def read_api(text: str) -> dict[str, Class]:
    classes: dict[str, Class] = {}
    package = ""
    current: Class | None = None
    for line in text.splitlines():
        word = line.split(None, 1)[0] if line.strip() else ""
        if word == "package":
            package = line.split()[-2]
        elif line.startswith("    ") and current is not None:
            if word in ("ctor", "method", "field", "enum_constant"):
                current.members.append(read_member(line, current))
        elif line.startswith("  ") and line.rstrip().endswith("{"):
            current = read_class(line, package)
            classes[current.name] = current
    for found in classes.values():
        if found.flags & ENUM and not any(member.name == "values" for member in found.members):
            own = found.parent.arguments[0]
            static = PUBLIC | STATIC
            found.members.append(Member("method", "values", static, [], Type(own.name, dimensions=1), []))
            found.members.append(Member("method", "valueOf", static, [], own, [], [([], Type("java.lang.String"))]))
    return classes


def write_jar(api: Path, jar: Path) -> int:
    classes = read_api(api.read_text(encoding="utf-8"))
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_STORED) as archive:
        for name, source in classes.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.class"), ClassFile(source, classes).write())
    return len(classes)


if __name__ == "__main__":
    print(write_jar(Path(sys.argv[1]), Path(sys.argv[2])), "classes")
