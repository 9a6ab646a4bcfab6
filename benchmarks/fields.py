"""Reading a JSON document field by field; what is wrong with it is said with file and field."""

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mnist_accel.errors import UsageError

T = TypeVar("T")
_LONGEST_QUOTE = 40


class Field:
    """A value of a JSON document, and where it stands.

    Args:
        value: as `json` reads it.
        file: the document, for messages.
        path: of the value in it, such as "benchmarks[3].stats"; empty for the whole.
    """

    def __init__(self, value: Any, file: Path, path: str = "") -> None:
        self._value = value
        self._file = file
        self.path = path

    def wrong(self, expected: str) -> UsageError:
        """Return the error that says what stands here and what was expected."""
        quote = json.dumps(self._value, ensure_ascii=False)
        if len(quote) > _LONGEST_QUOTE:
            quote = quote[:_LONGEST_QUOTE] + "…"
        return UsageError(
            f"{self._file}: {self.path or 'the file'} is {quote}; expected {expected}"
        )

    def __contains__(self, key: str) -> bool:
        return key in self._typed(dict, "an object")

    def __getitem__(self, key: str) -> "Field":
        path = f"{self.path}.{key}" if self.path else key
        try:
            return Field(self._typed(dict, "an object")[key], self._file, path)
        except KeyError:
            raise UsageError(f"{self._file}: {path} is missing") from None

    def __iter__(self) -> Iterator["Field"]:
        for index, value in enumerate(self._typed(list, "a list")):
            yield Field(value, self._file, f"{self.path}[{index}]")

    def items(self) -> Iterator[tuple[str, "Field"]]:
        """Yield the keys of an object, each with its field."""
        for key in self._typed(dict, "an object"):
            yield key, self[key]

    def text(self) -> str:
        """Return a string."""
        return str(self._typed(str, "a text"))

    def choice(self, choices: Sequence[str]) -> str:
        """Return one of these strings."""
        if self._value not in choices:
            raise self.wrong(f"one of {', '.join(choices)}")
        return self.text()

    def flag(self) -> bool:
        """Return a truth value."""
        return bool(self._typed(bool, "true or false"))

    def integer(self, minimum: int = 0) -> int:
        """Return an integer of at least `minimum`."""
        if type(self._value) is not int or self._value < minimum:
            raise self.wrong(f"an integer of at least {minimum}")
        return self._value

    def number(self, minimum: float = 0.0, *, above: float = -math.inf) -> float:
        """Return a finite number of at least `minimum`, and above `above`."""
        expected = f"a number above {above:g}" if above >= minimum else f"a number from {minimum:g}"
        # Compared before it is converted: an integer may be too large for a float.
        numeric = type(self._value) in (int, float)
        if not (numeric and minimum <= self._value < math.inf and self._value > above):
            raise self.wrong(expected)
        try:
            return float(self._value)
        except OverflowError:
            raise self.wrong(expected) from None

    def optional(self, read: Callable[["Field"], T]) -> T | None:
        """Return what `read` makes of the field, None where it is null."""
        return None if self._value is None else read(self)

    def _typed(self, wanted: type, expected: str) -> Any:
        if type(self._value) is not wanted:
            raise self.wrong(expected)
        return self._value


def read_json(path: Path) -> Field:
    """Read a JSON document, compressed by gzip where the file's name says so.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return Field(json.loads(content), path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is not compressed by gzip, or cut short: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply for a result file") from error
    except ValueError as error:  # of the JSON, of its encoding, or of a number without end
        raise UsageError(f"{path} is not a JSON file: {error}") from error
