"""Reads the instructions of a pickle from its bytes: opcodes, frames and literal values."""

import re
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# Longer literals occur in no file with weights, and conversions take quadratic time.
_MAX_NUMBER_CHARS = 100
_MAX_INTEGER_BYTES = 32
_MAX_NAME_CHARS = 200

_INTEGER = re.compile(rb"[+-]?(0|[1-9][0-9]{,%d})" % (_MAX_NUMBER_CHARS - 1))
# The text between the quotes of a string that Python 2 wrote with repr().
_PYTHON_2_STRING = re.compile(rb"""(?s)(?:[^\\]|\\[\\'"nrt]|\\x[0-9a-fA-F]{2})*+""")


class MalformedError(Exception):
    """The bytes are not a pickle; the message gives the reason."""


class RejectedError(Exception):
    """The pickle contains something that is not allowed; the message names it."""


def rejected(what: str) -> RejectedError:
    """Return the error for a pickle that contains `what`."""
    return RejectedError(f"it contains {what}, expected only dicts, strings, numbers and arrays")


class PickleReader:
    """A position in the bytes of a pickle.

    A frame is only a bound: no instruction may cross its end. Each byte is read exactly once.

    Attributes:
        position: index of the next byte.
    """

    def __init__(self, data: bytes) -> None:
        self.position = 0
        self._data = data
        self._frame_end = 0
        self._limit = 0  # end of the bytes that the current instruction may use

    def next_opcode(self) -> int:
        """Return the opcode of the next instruction, whose argument the other methods read."""
        in_frame = self.position < self._frame_end
        self._limit = self._frame_end if in_frame else len(self._data)
        return self.take(1)[0]

    def begin_frame(self) -> None:
        """Read the length of a frame, which begins after it."""
        if self.position <= self._frame_end:
            raise MalformedError("a frame begins within another frame")
        size = self.take_integer(8)
        if size > len(self._data) - self.position:
            raise MalformedError(f"a frame of {size} bytes exceeds the end of the file")
        self._frame_end = self.position + size

    def require_end(self) -> None:
        """Check that no byte is left."""
        if self.position != len(self._data):
            raise rejected(f"{len(self._data) - self.position} bytes after its end")

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes of the current instruction."""
        return self._data[self._advance(size)]

    def take_buffer(self, size: int) -> bytearray:
        """Return the next `size` bytes of the current instruction as a bytearray."""
        return bytearray(memoryview(self._data)[self._advance(size)])

    def take_integer(self, size: int, *, signed: bool = False) -> int:
        """Return a little-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def take_line(self) -> bytes:
        """Return the bytes before the next line break; skip it."""
        end = self._data.find(b"\n", self.position, self._limit)
        if end < 0:
            raise MalformedError(f"the line at byte {self.position} has no end")
        return self.take(end + 1 - self.position)[:-1]

    def take_name(self) -> str:
        """Return a line with a part of the name of a function or class."""
        line = self.take_line()
        if len(line) > _MAX_NAME_CHARS:
            raise rejected(f"a name of {len(line)} bytes")
        return line.decode("utf-8", "backslashreplace")

    def _advance(self, size: int) -> slice:
        start, end = self.position, self.position + size
        if end > self._limit:
            end_of = "the file" if self._limit == len(self._data) else "its frame"
            raise MalformedError(f"the instruction at byte {start} exceeds the end of {end_of}")
        self.position = end
        return slice(start, end)


def _integer_line(reader: PickleReader) -> int | bool:
    line = reader.take_line()
    if line in (b"00", b"01"):  # how protocols 0 and 1 write bool
        return line == b"01"
    return _parse_integer(line)


def _parse_integer(line: bytes) -> int:
    if not _INTEGER.fullmatch(line):
        raise MalformedError(f"found {_start(line)}, expected an integer")
    return int(line)


def _float_line(reader: PickleReader) -> float:
    line = reader.take_line()
    if len(line) <= _MAX_NUMBER_CHARS:
        with suppress(ValueError):
            return float(line)
    raise MalformedError(f"found {_start(line)}, expected a number")


def _python_2_string(reader: PickleReader) -> bytes:
    line = reader.take_line()
    quoted = len(line) >= 2 and line[:1] == line[-1:] and line[:1] in (b"'", b'"')
    if not quoted or not _PYTHON_2_STRING.fullmatch(line[1:-1]):
        raise MalformedError(f"found {_start(line)}, expected a string in quotes")
    return line[1:-1].decode("unicode_escape").encode("latin1")


def _long_integer(reader: PickleReader, size: int) -> int:
    if size > _MAX_INTEGER_BYTES:
        raise rejected(f"an integer of {size} bytes")
    return reader.take_integer(size, signed=True)


def _binary_float(reader: PickleReader) -> float:
    value: float = struct.unpack(">d", reader.take(8))[0]
    return value


def _text(data: bytes, encoding: str, errors: str = "strict") -> str:
    try:
        return data.decode(encoding, errors)
    except UnicodeDecodeError:
        raise MalformedError(f"a string is not valid {encoding}") from None


def _utf_8(reader: PickleReader, size: int) -> str:
    return _text(reader.take(size), "utf-8", "surrogatepass")


def _start(line: bytes) -> str:
    return ascii(line[:20].decode("latin1"))


# The instructions that push a value, by opcode (Python's `pickletools` documents all of them).
LITERALS: Final[dict[int, Callable[[PickleReader], object]]] = {
    ord("N"): lambda reader: None,
    0x88: lambda reader: True,
    0x89: lambda reader: False,
    ord("I"): _integer_line,
    ord("L"): lambda reader: _parse_integer(reader.take_line().removesuffix(b"L")),
    ord("F"): _float_line,
    ord("S"): _python_2_string,
    ord("V"): lambda reader: _text(reader.take_line(), "raw-unicode-escape"),
    ord("K"): lambda reader: reader.take_integer(1),
    ord("M"): lambda reader: reader.take_integer(2),
    ord("J"): lambda reader: reader.take_integer(4, signed=True),
    0x8A: lambda reader: _long_integer(reader, reader.take_integer(1)),
    0x8B: lambda reader: _long_integer(reader, reader.take_integer(4)),
    ord("G"): _binary_float,
    ord("U"): lambda reader: reader.take(reader.take_integer(1)),
    ord("T"): lambda reader: reader.take(reader.take_integer(4)),
    ord("C"): lambda reader: reader.take(reader.take_integer(1)),
    ord("B"): lambda reader: reader.take(reader.take_integer(4)),
    0x8E: lambda reader: reader.take(reader.take_integer(8)),
    0x96: lambda reader: reader.take_buffer(reader.take_integer(8)),
    ord("X"): lambda reader: _utf_8(reader, reader.take_integer(4)),
    0x8C: lambda reader: _utf_8(reader, reader.take_integer(1)),
    0x8D: lambda reader: _utf_8(reader, reader.take_integer(8)),
    ord("}"): lambda reader: {},
    ord("]"): lambda reader: [],
    ord(")"): lambda reader: (),
}
