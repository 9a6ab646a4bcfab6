"""Decodes JSON and TOML that may be damaged or hostile, by schemas that msgspec checks.

A schema gives each field a type and a range that excludes NaN and infinity.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from mnist_accel.errors import DataError
from mnist_accel.util.text import excerpt

_MAX_FLOAT = 1.7976931348623157e308

Integer: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
AtLeastOne: TypeAlias = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Finite: TypeAlias = Annotated[float, Meta(ge=-_MAX_FLOAT, le=_MAX_FLOAT)]
Amount: TypeAlias = Annotated[float, Meta(ge=0, le=_MAX_FLOAT)]
Positive: TypeAlias = Annotated[float, Meta(gt=0, le=_MAX_FLOAT)]
Fraction: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Name: TypeAlias = Annotated[str, Meta(max_length=100)]

_T = TypeVar("_T")


def decode_json(data: bytes | str, schema: type[_T], *, name: str, kind: str) -> _T:
    """Return the content of JSON text, in the types of a schema.

    Args:
        data: the text.
        schema: the type of the result.
        name: name of the text in error messages, such as the path of its file.
        kind: what text with this schema is, such as "the config.json of a run".

    Raises:
        DataError: the text is not JSON, is nested too deeply, or does not have this schema.
    """
    with _schema_errors(name, kind, "JSON"):
        # msgspec's own decoder rejects lone surrogates, which occur in names of files.
        return msgspec.convert(json.loads(data, parse_constant=_reject_constant), schema)


def decode_toml(data: bytes, schema: type[_T], *, name: str, kind: str) -> _T:
    """Return the content of TOML text, in the types of a schema; see `decode_json`.

    Raises:
        DataError: the text is not TOML, is nested too deeply, or does not have this schema.
    """
    with _schema_errors(name, kind, "TOML"):
        return msgspec.toml.decode(data, type=schema)


def convert(value: Any, schema: type[_T]) -> _T:
    """Return a value of dicts, lists, strings and numbers in the types of a schema.

    Raises:
        ValueError: the value does not have this schema; the message names the field.
    """
    try:
        return msgspec.convert(value, schema)
    except msgspec.ValidationError as error:
        raise ValueError(_describe(error)) from error


@contextmanager
def _schema_errors(name: str, kind: str, language: str) -> Iterator[None]:
    """Raise a `DataError` in place of the errors of msgspec and tomllib."""
    try:
        yield
    except msgspec.ValidationError as error:
        raise DataError(f"{name} is not {kind}: {_describe(error)}") from error
    except RecursionError as error:
        raise DataError(f"{name} is not valid {language}: it is nested too deeply") from error
    except ValueError as error:  # not this language, not UTF-8, or a number of too many digits
        raise DataError(f"{name} is not valid {language}: {excerpt(error)}") from error


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"found {name}, which JSON does not have")


def _describe(error: msgspec.ValidationError) -> str:
    """Return the field and the problem, such as "settings.lr: expected `float`, got `str`"."""
    problem, _, where = str(error).rpartition(" - at ")
    if not problem:
        problem, where = where, ""
    field = where.replace("`", "").removeprefix("$").removeprefix(".")
    problem = problem[:1].lower() + problem[1:]
    return ": ".join(filter(None, (excerpt(field, max_chars=100), excerpt(problem))))
