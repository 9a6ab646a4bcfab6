"""Small random changes of files: of bytes, and of JSON values."""

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

_SIZES = (0, 1, 7, 8, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
_NUMBERS = (b"0", b"-1", b"1e999", b"nan", b"9" * 30, b"9" * 5000, b"0x" + b"f" * 9000)
HOSTILE_TEXTS = ("", "x" * 10_000, "\x1b[31mred\x1b[0m", "\u202egnp", "a\nb", "\x00", "é")


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


_SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf")),
    *(2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400, 10**4000),
    *HOSTILE_TEXTS,
)
# Functions, because a container must not be shared by several documents.
_CONTAINERS: tuple[Callable[[], Any], ...] = (
    *(list, dict, lambda: [[]], lambda: [0] * 10_000, lambda: {"a": 1}, lambda: {"": None}),
    # Two of the latter within each other must not exceed the recursion limit of `json.dumps`.
    *(lambda: nested(50), lambda: nested(450)),
)
NUMBER_OF_VALUES = len(_SCALARS) + len(_CONTAINERS)


def hostile_value(number: int) -> Any:
    """Return one of the values that a document should not contain."""
    if number < len(_SCALARS):
        return _SCALARS[number]
    return _CONTAINERS[number - len(_SCALARS)]()


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return the data after one to four random changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_CHANGES)(data, rng)
    return data


def _place(data: bytes, rng: random.Random) -> int:
    """Return a position, often near the beginning or the end, where headers are."""
    near, anywhere = rng.randint(0, min(len(data), 200)), rng.randint(0, len(data))
    return rng.choice((near, len(data) - near, anywhere))


def _flip(data: bytes, rng: random.Random) -> bytes:
    at, bit = _place(data, rng), 1 << rng.randrange(8)
    return data[:at] + bytes(byte ^ bit for byte in data[at : at + 1]) + data[at + 1 :]


def _integer(data: bytes, rng: random.Random) -> bytes:
    at, width = _place(data, rng), rng.choice((1, 2, 4, 8))
    order = rng.choice(("little", "big"))
    number = (rng.choice(_SIZES) % 256**width).to_bytes(width, order)  # type: ignore[arg-type]
    return data[:at] + number + data[at + width :]


def _delete(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 8, 100, 10_000)) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at, size = _place(data, rng), rng.choice((1, 4, 16, 100))
    return data[:at] + data[at : at + size] * rng.choice((2, 3, 1000)) + data[at + size :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 8, 100))) + data[at:]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _move(data: bytes, rng: random.Random) -> bytes:
    at, to, size = _place(data, rng), _place(data, rng), rng.choice((1, 4, 16, 64))
    return data[:to] + data[at : at + size] + data[to + size :]


def _number(data: bytes, rng: random.Random) -> bytes:
    """Replace a decimal number in text."""
    numbers = list(re.finditer(rb"\d+", data[:100_000]))
    if not numbers:
        return _flip(data, rng)
    found = rng.choice(numbers)
    return data[: found.start()] + rng.choice(_NUMBERS) + data[found.end() :]


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _integer, _delete, _repeat, _insert, _truncate, _move, _number),
)


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Return a JSON value in which one or two parts are replaced, removed, renamed or repeated."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2))):
        candidates = list(places(value))
        if not candidates:
            return hostile_value(rng.randrange(NUMBER_OF_VALUES))
        container, key = rng.choice(candidates)
        action = rng.random()
        if action < 0.7:
            container[key] = hostile_value(rng.randrange(NUMBER_OF_VALUES))
        elif action < 0.8:
            del container[key]
        elif action < 0.9 and isinstance(container, dict):
            container[rng.choice((*HOSTILE_TEXTS, "other"))] = container.pop(key)
        elif isinstance(container, list):
            container.extend([container[key]] * rng.choice((1, 500)))
        elif isinstance(container[key], int | float):
            container[key] = container[key] * rng.choice((-1, 2, 1000)) + rng.choice((-1, 0, 1))
    return value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in a JSON value with each of its keys or indices."""
    if isinstance(value, dict | list):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from places(item)
