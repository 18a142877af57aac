"""Mutations that keep a file well-formed: what is inside it changes, not how it is written. A fuzzer of bytes alone stops at the parser."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

_INTEGERS = (0, 1, -1, 2, 7, 255, 4097, 1 << 20, (1 << 31) - 1, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63))
_REALS = (0.0, -1.0, 1e-30, 0.5, 1e30, -1e308, float("nan"), float("inf"))
_TEXTS = ("", ".", "..", "../../x", "/etc/passwd", "a\0b", "<script>", "\N{SNOWMAN}", "1.x", "x" * 3000, "\n")


class Form(NamedTuple):
    """How a file is taken apart and put together."""

    load: Callable[[bytes], Any]
    """Dictionaries, lists, numbers, texts; or objects whose attributes are such."""
    dump: Callable[[Any], bytes]


def _load_json(data: bytes) -> Any:
    return _nested(json.loads(data), json.loads)


def _nested(tree: Any, load: Callable[[str], Any]) -> Any:
    """With JSON that is a text in JSON as a tree, marked by a tuple."""
    if isinstance(tree, dict):
        return {name: _nested(value, load) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_nested(value, load) for value in tree]
    if isinstance(tree, str) and tree.startswith("{"):
        return _Text(inner=_nested(load(tree), load))
    return tree


class _Text:
    """JSON inside a text."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


JSON = Form(
    _load_json, lambda tree: json.dumps(tree, default=lambda text: json.dumps(text.inner, default=_plain), ensure_ascii=False).encode()
)


def _plain(text: Any) -> str:
    return json.dumps(text.inner, default=_plain)


def message(kind: Callable[[], Any]) -> Form:
    """Protocol buffers."""
    from google.protobuf import json_format

    def load(data: bytes) -> Any:
        one = kind()
        one.ParseFromString(data)
        return json_format.MessageToDict(one)

    return Form(load, lambda tree: json_format.ParseDict(tree, kind(), ignore_unknown_fields=True).SerializeToString())


def mutate(form: Form, data: bytes, seed: int) -> bytes:
    """Change one to four things. Raises whatever the form raises where ``data`` is not of it, or cannot be after the change."""
    rng = random.Random(seed)
    tree = copy.deepcopy(form.load(data))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(tree))
        if places:
            _change(rng, places)
    return form.dump(tree)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key)."""
    waiting = [tree]
    while waiting:
        container = waiting.pop()
        for key, value in _items(container):
            yield container, key
            if isinstance(value, (dict, list)) or hasattr(value, "__dict__"):
                waiting.append(value)


def _items(container: Any) -> list[tuple[Any, Any]]:
    if isinstance(container, dict):
        return list(container.items())
    return list(enumerate(container)) if isinstance(container, list) else list(vars(container).items())


def _change(rng: random.Random, places: list[tuple[Any, Any]]) -> None:
    container, key = rng.choice(places)
    old = getattr(container, key) if hasattr(container, "__dict__") else container[key]
    what = rng.random()
    if what < 0.1 and isinstance(container, (dict, list)):
        del container[key]
        return
    if what < 0.2 and isinstance(container, list):
        container.insert(key, copy.deepcopy(old))
        return
    if what < 0.35:  # what stands somewhere else
        other, there = rng.choice(places)
        new = copy.deepcopy(getattr(other, there) if hasattr(other, "__dict__") else other[there])
    else:
        new = _hostile(rng, old)
    if hasattr(container, "__dict__"):
        setattr(container, key, new)
    else:
        container[key] = new


def _hostile(rng: random.Random, old: Any) -> Any:
    if isinstance(old, bool) or old is None:
        return rng.choice((True, False, None, 0))
    if isinstance(old, (int, np.integer)):
        return rng.choice((*_INTEGERS, int(old) + 1, int(old) - 1, -int(old), 2 * int(old)))
    if isinstance(old, float):
        return rng.choice((*_REALS, -old, 2 * old))
    if isinstance(old, (str, bytes)):
        text = rng.choice((*_TEXTS, *map(str, _INTEGERS)))
        return text if isinstance(old, str) else text.encode()
    if isinstance(old, list):
        return rng.choice(([], old * 2, old[:1], old[::-1], old[:1] * 100))
    if isinstance(old, np.ndarray) and old.size:
        new = old.copy().reshape(-1)
        position = rng.randrange(0, max(1, new.size - 3), 4)
        new[position : position + 4] = np.frombuffer(np.int64(rng.choice(_INTEGERS)).tobytes()[:4], np.uint8)[: new.size - position]
        return new
    return rng.choice((None, 0, "", []))
