"""Reads pickles from untrusted files: dicts, strings, numbers, sequences and arrays.

A pickle is a program for an interpreter that can import and call any function. This module does not
use Python's interpreter. It interprets the few instructions that files with weights need, and
rejects all others by name.

Time and memory are bounded: the number of instructions is limited, no value is larger than its
bytes in the file, and values are never copied for each reference to them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mnist_accel.errors import DataError, escaped
from mnist_accel.util.pickle_reader import (
    LITERALS,
    MalformedError,
    PickleReader,
    RejectedError,
    rejected,
)
from mnist_accel.util.pickled_objects import (
    NAMES,
    Name,
    ObjectCell,
    PickledArray,
    PickledDType,
    key,
    type_name,
)

# A dict of arrays needs about 40 instructions per array, so the limit allows over 200 arrays.
_MAX_INSTRUCTIONS = 10_000
_MAX_DEPTH = 32
_MAX_PROTOCOL = 5
_PROTO, _FRAME, _STOP = 0x80, 0x95, ord(".")


def load_pickle(data: bytes, *, name: str) -> Any:
    """Return the content of the pickle `data` if it consists of plain values.

    Plain values are None, bool, int, float, str, NumPy arrays of a boolean, integer, real or
    complex dtype, and lists, tuples and dicts of plain values. The keys of dicts are strings.
    Arrays are returned read-only, NumPy scalars as Python numbers, OrderedDict and defaultdict as
    dict, and byte strings (the strings of Python 2) as str, decoded as Latin-1. A 0-d object array
    at the top level, in which `numpy.save` stores a dict, is replaced by its content. Protocols 0
    to 5 are supported, except for out-of-band buffers.

    Args:
        data: the whole pickle.
        name: name of the file in error messages.

    Raises:
        DataError: the pickle is corrupt, or contains anything else.
    """
    try:
        value = _Machine(data).run()
        if isinstance(value, PickledArray) and isinstance(value.value, ObjectCell):
            value = value.value.content
        return _plain(value, [], {})
    except RejectedError as error:
        raise DataError(f"{name} is rejected: {error}") from error
    except MalformedError as error:
        raise DataError(f"{name} is not a well-formed pickle: {error}") from error


class _Machine:
    """An interpreter of pickles with a stack and a memo."""

    def __init__(self, data: bytes) -> None:
        self._reader = PickleReader(data)
        self._stack: list[Any] = []
        self._outer_stacks: list[list[Any]] = []  # below the marks, outermost first
        self._memo: dict[int, Any] = {}
        # Calls may produce as many bytes and items as the file has bytes; literals are not counted.
        self._allowance = len(data)

    def run(self) -> Any:
        """Return the value that the program leaves on its stack."""
        for count in range(_MAX_INSTRUCTIONS):
            opcode = self._reader.next_opcode()
            if opcode in LITERALS:
                self._stack.append(LITERALS[opcode](self._reader))
            elif opcode in _INSTRUCTIONS:
                _INSTRUCTIONS[opcode](self)
            elif opcode == _STOP:
                self._reader.require_end()
                if len(self._stack) != 1 or self._outer_stacks:
                    raise MalformedError("it does not end with one value")
                return self._stack[0]
            elif opcode == _PROTO and count == 0:
                self._check_protocol()
            else:
                raise self._unsupported(opcode)
        raise RejectedError(
            f"it contains more than {_MAX_INSTRUCTIONS} pickle instructions; store numbers in "
            "NumPy arrays"
        )

    def _check_protocol(self) -> None:
        protocol = self._reader.take_integer(1)
        if protocol > _MAX_PROTOCOL:
            raise rejected(f"protocol {protocol} of pickle")

    def _unsupported(self, opcode: int) -> Exception:
        import pickletools  # only for messages

        for info in pickletools.opcodes:
            if info.code == chr(opcode):
                return rejected(f"the pickle instruction {info.name}")
        return MalformedError(f"found 0x{opcode:02x} where an instruction begins")

    def frame(self) -> None:
        """Begin a frame, which only bounds the instructions in it."""
        self._reader.begin_frame()

    def mark(self) -> None:
        """Begin a new stack for the items of a container."""
        self._outer_stacks.append(self._stack)
        self._stack = []

    def push_tuple(self) -> None:
        """Push a tuple of the items after the mark."""
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def push_list(self) -> None:
        """Push a list of the items after the mark."""
        items = self._pop_mark()
        self._stack.append(items)

    def push_dict(self) -> None:
        """Push a dict of the keys and values after the mark."""
        items = self._pop_mark()
        self._stack.append(_to_dict(items))

    def push_short_tuple(self, size: int) -> None:
        """Push a tuple of the last `size` items."""
        items = [self._pop() for _ in range(size)]
        self._stack.append(tuple(reversed(items)))

    def append(self) -> None:
        """Append the last item to the list before it."""
        item = self._pop()
        self._top(list).append(item)

    def extend(self) -> None:
        """Append the items after the mark to the list before it."""
        items = self._pop_mark()
        self._top(list).extend(items)

    def set_item(self) -> None:
        """Store a key and its value in the dict before them."""
        value, name = self._pop(), self._pop()
        self._top(dict)[key(name)] = value

    def set_items(self) -> None:
        """Store the keys and values after the mark in the dict before it."""
        items = self._pop_mark()
        self._top(dict).update(_to_dict(items))

    def put(self, index: int) -> None:
        """Store the last item in the memo."""
        if index > _MAX_INSTRUCTIONS:
            raise rejected(f"memo index {index}")
        self._memo[index] = self._top(object)

    def put_line(self) -> None:
        """Store the last item in the memo at the index in the next line."""
        self.put(self._index_line())

    def put_binary(self, size: int) -> None:
        """Store the last item in the memo at the index in the next `size` bytes."""
        self.put(self._reader.take_integer(size))

    def memoize(self) -> None:
        """Store the last item in the memo at the next index."""
        self.put(len(self._memo))

    def get_line(self) -> None:
        """Push the item in the memo at the index in the next line."""
        self._get(self._index_line())

    def get_binary(self, size: int) -> None:
        """Push the item in the memo at the index in the next `size` bytes."""
        self._get(self._reader.take_integer(size))

    def push_name(self) -> None:
        """Push the name in the next two lines."""
        module, name = self._reader.take_name(), self._reader.take_name()
        self._push_allowed(module, name)

    def push_name_from_stack(self) -> None:
        """Push the name in the last two items."""
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise MalformedError("a name is not a string")
        self._push_allowed(module, name)

    def call(self) -> None:
        """Call the name before the last item with the arguments in it."""
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Name):
            raise rejected(f"a call of {type_name(function)}")
        result = function.call(arguments)
        if isinstance(result, (bytes, dict)):
            self._allowance -= len(result)
            if self._allowance < 0:
                raise rejected("calls that repeat the same data")
        self._stack.append(result)

    def set_state(self) -> None:
        """Set the state of the array or dtype before the last item."""
        state, target = self._pop(), self._top(object)
        if not isinstance(target, (PickledArray, PickledDType)):
            raise rejected(f"a change of {type_name(target)}")
        target.set_state(state)

    def _pop(self) -> Any:
        if not self._stack:
            raise MalformedError(f"the stack is empty at byte {self._reader.position}")
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        """Return the items after the last mark, and continue with the stack before it."""
        if not self._outer_stacks:
            raise MalformedError(f"a mark is missing at byte {self._reader.position}")
        items, self._stack = self._stack, self._outer_stacks.pop()
        return items

    def _top(self, kind: type) -> Any:
        """Return the last item, which must be of type `kind`."""
        if not self._stack:
            raise MalformedError(f"the stack is empty at byte {self._reader.position}")
        if not isinstance(self._stack[-1], kind):
            raise rejected(f"items that are added to {type_name(self._stack[-1])}")
        return self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise MalformedError(
                f"the memo is empty at an index before byte {self._reader.position}"
            )
        self._stack.append(self._memo[index])

    def _index_line(self) -> int:
        line = self._reader.take_line()
        if not line.isdigit() or len(line) > 9:
            raise MalformedError(
                f"a memo index before byte {self._reader.position} is not a number"
            )
        return int(line)

    def _push_allowed(self, module: str, name: str) -> None:
        dotted = f"{module}.{name}"
        if dotted not in NAMES:
            raise rejected(escaped(dotted[:60])[:60])
        self._stack.append(NAMES[dotted])


_INSTRUCTIONS: dict[int, Callable[[_Machine], None]] = {
    _FRAME: _Machine.frame,
    ord("("): _Machine.mark,
    ord("t"): _Machine.push_tuple,
    0x85: lambda machine: machine.push_short_tuple(1),
    0x86: lambda machine: machine.push_short_tuple(2),
    0x87: lambda machine: machine.push_short_tuple(3),
    ord("l"): _Machine.push_list,
    ord("d"): _Machine.push_dict,
    ord("a"): _Machine.append,
    ord("e"): _Machine.extend,
    ord("s"): _Machine.set_item,
    ord("u"): _Machine.set_items,
    ord("p"): _Machine.put_line,
    ord("q"): lambda machine: machine.put_binary(1),
    ord("r"): lambda machine: machine.put_binary(4),
    0x94: _Machine.memoize,
    ord("g"): _Machine.get_line,
    ord("h"): lambda machine: machine.get_binary(1),
    ord("j"): lambda machine: machine.get_binary(4),
    ord("c"): _Machine.push_name,
    0x93: _Machine.push_name_from_stack,
    ord("R"): _Machine.call,
    ord("b"): _Machine.set_state,
}


def _to_dict(items: list[Any]) -> dict[str, Any]:
    if len(items) % 2:
        raise MalformedError("a dict has a key without a value")
    return {key(name): value for name, value in zip(items[::2], items[1::2], strict=True)}


def _plain(value: Any, above: list[int], done: dict[int, Any]) -> Any:
    """Return `value` rebuilt from plain values.

    Args:
        value: a result of the machine.
        above: identities of the containers around it, outermost first.
        done: rebuilt values by identity, so that shared values are rebuilt once.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, PickledArray):
        if isinstance(value.value, np.ndarray) or type(value.value) in (bool, int, float, complex):
            return value.value
        raise rejected("an array of Python objects, or one with no data")
    if type(value) not in (bytes, dict, list, tuple):
        raise rejected(type_name(value))
    if id(value) in done:
        return done[id(value)]
    if id(value) in above:
        raise rejected(f"a {type(value).__name__} that contains itself")
    if len(above) >= _MAX_DEPTH:
        raise rejected(f"more than {_MAX_DEPTH} levels of nesting")
    inside = [*above, id(value)]
    rebuilt: Any
    if type(value) is bytes:
        rebuilt = value.decode("latin1")
    elif type(value) is dict:
        rebuilt = {name: _plain(item, inside, done) for name, item in value.items()}
    else:
        rebuilt = type(value)(_plain(item, inside, done) for item in value)
    done[id(value)] = rebuilt
    return rebuilt
