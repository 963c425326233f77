"""Changing input a little: bytes of any file, values of JSON."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

_BYTES = (
    b"\0",
    b"\xff",
    b"\n",
    b'"',
    b"{",
    b"[",
    b"../",
    b"/etc/passwd",
    b"9" * 5000,
    b"\xed\xa0\x80",
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, 10**400, -(2**63), 0.5, 1e308),
    *("", ".", "..", "../../x", "/etc/passwd", "a\nb", "a\0b", "\x1b[2J", "é", "9" * 5000),
    *([], {}, [[]], [None], {"a": {}}, [0] * 9, "AAAA", "0" * 32, "0" * 16, "float64", "hdf5"),
)


def changed_bytes(draw: Random, content: bytes, others: list[bytes]) -> bytes:
    """One to four small changes; now and then a piece of another input."""
    made = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(made) + 1)
        length = min(draw.choice((1, 1, 2, 8, 64, 1024)), len(made) - place)
        kind = draw.randrange(7)
        if kind == 0 and length:
            made[place] ^= 1 << draw.randrange(8)
        elif kind == 1 and length:
            made[place : place + length] = draw.randbytes(length)
        elif kind == 2:
            del made[place : place + length]
        elif kind == 3:
            made[place:place] = made[place : place + length]
        elif kind == 4:
            made[place:place] = draw.choice(_BYTES)
        elif kind == 5:
            other = draw.choice(others)
            start = draw.randrange(len(other) + 1)
            made[place : place + length] = other[start : start + 64]
        elif draw.random() < 0.2:
            del made[place:]
    return bytes(made)


def changed_json(draw: Random, value: Any) -> Any:
    """A JSON value with one to three of its parts replaced, removed, doubled or exchanged."""
    made = copy.deepcopy(value)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(made))
        if not places:
            return draw.choice(_VALUES)
        parent, key = draw.choice(places)
        kind = draw.randrange(6)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif kind == 2:
            other, at = draw.choice(places)
            parent[key] = copy.deepcopy(other[at])
        elif kind == 3 and type(parent[key]) is int:
            parent[key] += draw.choice((-1, 1, 8, 4096, -4096))
        else:
            parent[key] = copy.deepcopy(draw.choice(_VALUES))
    return made


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (object or list, name or position) in a JSON value."""
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        one = todo.pop()
        keys = (
            list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        )
        for key in keys:
            found.append((one, key))
            todo.append(one[key])
    return found
