"""Reads the parameters of CUDA kernels from their source, and converts Python arguments to them.

The CUDA source is the only declaration of a kernel's parameters, of the structs that it takes by
value and of enumerations. Python passes arguments by name:

| declared as | argument |
|---|---|
| `const real* x` | array in C order with this element type, or None for a null pointer |
| `int n`, `int64 n`, `uint32 n` | int |
| `real shift`, `double shift` | float or int |
| `Activation kind`, an enumeration | name of an enumerator in lower case, such as "relu" |
| `PoolShape shape`, a struct | dataclass or mapping with the fields of the struct |

Arrays as members of structs take sequences; elements that are not given are 0. A type may also be
the name of a compiler option, such as `PIXEL`, whose value is the type.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Options: TypeAlias = Mapping[str, str | int]

SCALARS = {
    "int": "int32",
    "int32": "int32",
    "int64": "int64",
    "unsigned": "uint32",
    "uint32": "uint32",
    "uint8": "uint8",
    "float": "float32",
    "double": "float64",
}
_COMMENT = re.compile(r"//.*")
_KERNEL = re.compile(
    r'extern "C" __global__ void\s+(?:\w+\s*(?:\([^)]*\))?\s+)*?(\w+)\(([^)]*)\)\s*\{'
)
_STRUCT = re.compile(r"^struct (\w+) \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)
_ENUM = re.compile(r"^enum (\w+) \{([^}]*)\};", re.MULTILINE)
_DECLARATION = re.compile(r"(\w+)(\s*\*\s*|\s+)(\w+)(?:\[(\w+)\])?$")
_QUALIFIERS = re.compile(r"\b(?:const|volatile|__restrict__|__grid_constant__)\b")


class ArgumentError(TypeError):
    """An argument of a kernel does not match its declaration."""


class Pointer:
    """A pointer to elements of one dtype; `dtype` is that of the pointer itself."""

    dtype = np.dtype("uint64")
    zero = 0

    def __init__(self, element: str) -> None:
        self._element = np.dtype(element)

    def check(self, array: Any) -> None:
        """Raise `ArgumentError` unless `array` has the element type and is in C order."""
        if getattr(array, "dtype", None) != self._element:
            found = getattr(array, "dtype", type(array).__name__)
            raise ArgumentError(f"expected an array of {self._element}, got {found}")
        if not array.flags.c_contiguous:
            raise ArgumentError("expected an array in C order; copy it with ascontiguousarray()")

    def member(self, array: Any) -> int:
        """Return the address of `array`, for a member of a struct."""
        if array is None:
            return 0
        self.check(array)
        return int(array.data.ptr)

    def argument(self, array: Any) -> Any:
        """Return what CuPy passes as this pointer."""
        if array is None:
            return np.uint64(0)
        self.check(array)
        return array


class Scalar:
    """A number."""

    zero = 0

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self._accepted = (int, np.integer) if self.dtype.kind in "iu" else (int, float, np.number)

    def member(self, value: Any) -> Any:
        """Return the value with the width of the declaration."""
        if not isinstance(value, self._accepted):
            raise ArgumentError(f"expected a number of type {self.dtype}, got {value!r}")
        try:
            return self.dtype.type(value)
        except OverflowError:
            raise ArgumentError(f"{value} does not fit {self.dtype}") from None

    argument = member


class Enumeration:
    """One of some names."""

    dtype = np.dtype("int32")
    zero = 0

    def __init__(self, names: Sequence[str]) -> None:
        self._values = {name.lower(): np.int32(value) for value, name in enumerate(names)}

    @property
    def names(self) -> tuple[str, ...]:
        """The accepted names."""
        return tuple(self._values)

    def member(self, name: Any) -> Any:
        """Return the number of an enumerator."""
        if name not in self._values:
            raise ArgumentError(f"expected one of {', '.join(self._values)}, got {name!r}")
        return self._values[name]

    argument = member


class Struct:
    """A struct that is passed by value."""

    def __init__(self, name: str, members: Mapping[str, "Member"]) -> None:
        self._name = name
        self.members = members
        layout = [(key, *member.layout) for key, member in members.items()]
        self.dtype = np.dtype(layout, align=True)
        self.zero = tuple(member.zero for member in members.values())

    def member(self, value: Any) -> tuple[Any, ...]:
        """Return the members in their order."""
        given = _as_mapping(value)
        if given is None or given.keys() != self.members.keys():
            found = type(value).__name__ if given is None else ", ".join(given)
            raise ArgumentError(
                f"expected the members {', '.join(self.members)} of {self._name}, got {found}"
            )
        values = []
        for name, member in self.members.items():
            try:
                values.append(member.convert(given[name]))
            except ArgumentError as error:
                raise ArgumentError(f"{self._name}.{name}: {error}") from None
        return tuple(values)

    def argument(self, value: Any) -> NDArray[Any]:
        """Return a structured array with one element, which CuPy passes by value."""
        return np.array(self.member(value), self.dtype)


Type: TypeAlias = Pointer | Scalar | Enumeration | Struct


@dataclass(frozen=True)
class Member:
    """A member of a struct.

    Attributes:
        type: of the member, or of the elements if it is an array.
        length: number of elements of an array; None for other members.
    """

    type: Type
    length: int | None

    @property
    def layout(self) -> tuple[Any, ...]:
        """Return dtype and, for arrays, shape."""
        return (self.type.dtype,) if self.length is None else (self.type.dtype, self.length)

    @property
    def zero(self) -> Any:
        """Return the value of a member that is not given."""
        return self.type.zero if self.length is None else [self.type.zero] * self.length

    def convert(self, value: Any) -> Any:
        """Return what NumPy stores for an argument."""
        if self.length is None:
            return self.type.member(value)
        if len(value) > self.length:
            raise ArgumentError(f"expected at most {self.length} elements, got {len(value)}")
        missing = self.length - len(value)
        return [*map(self.type.member, value), *[self.type.zero] * missing]


def enumerators(source: str, name: str) -> tuple[str, ...]:
    """Return the names of an enumeration in lower case, as arguments have them."""
    return _Types(source, {}).enumeration(name).names


def struct_members(source: str, name: str) -> tuple[str, ...]:
    """Return the names of a struct's members in their order."""
    return tuple(_Types(source, {"REAL": "double"}).struct(name).members)


def kernel_names(source: str) -> list[str]:
    """Return the names of the kernels of a source, in their order."""
    return [name for name, _ in _KERNEL.findall(_COMMENT.sub("", source))]


def parameters(source: str, kernel: str, options: Options) -> dict[str, Type]:
    """Return the types of a kernel's parameters by name, in their order.

    Args:
        source: CUDA C++ with all headers in place.
        kernel: name of the kernel.
        options: macros that are defined on the command line of the compiler, with their values.

    Raises:
        KeyError: the source has no such kernel.
        ValueError: a parameter cannot be read.
    """
    declarations = dict(_KERNEL.findall(_COMMENT.sub("", source)))[kernel]
    types = _Types(source, options)
    found = {}
    for declaration in declarations.split(","):
        ((name, member),) = types.members(declaration)
        found[name] = member.type
    return found


class _Types:
    """The types of a source for some compiler options."""

    def __init__(self, source: str, options: Options) -> None:
        text = _COMMENT.sub("", source)
        self._structs = dict(_STRUCT.findall(text))
        self._enums = dict(_ENUM.findall(text))
        self._options = options

    def members(self, declaration: str) -> list[tuple[str, Member]]:
        """Return the variables that a declaration such as `int rows, columns` declares."""
        first, *others = _QUALIFIERS.sub("", declaration).strip().split(",")
        match = _DECLARATION.match(first.strip())
        if match is None:
            raise ValueError(f"cannot read the declaration {declaration.strip()!r}")
        type_name, space, name, length = match.groups()
        type_ = self._type(type_name, is_pointer="*" in space)
        found = [(name, Member(type_, self._length(length)))]
        return found + [(other.strip(), Member(type_, None)) for other in others]

    def _type(self, name: str, *, is_pointer: bool) -> Type:
        name = "REAL" if name == "real" else name
        scalar = SCALARS.get(str(self._options.get(name, name)))
        if is_pointer:
            if scalar is None:
                raise ValueError(f"cannot pass a pointer to {name}")
            return Pointer(scalar)
        if scalar is not None:
            return Scalar(scalar)
        if name in self._enums:
            return self.enumeration(name)
        if name not in self._structs:
            raise ValueError(f"unknown type {name}")
        return self.struct(name)

    def enumeration(self, name: str) -> Enumeration:
        """Return an enumeration."""
        return Enumeration([part.strip() for part in self._enums[name].split(",")])

    def struct(self, name: str) -> Struct:
        """Return a struct; its data members come before its functions."""
        members: dict[str, Member] = {}
        for declaration in self._structs[name].split(";"):
            if "(" in declaration or not declaration.strip():
                break
            members.update(self.members(declaration))
        return Struct(name, members)

    def _length(self, text: str | None) -> int | None:
        return None if text is None else int(self._options.get(text, text))


def _as_mapping(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return value
    if not is_dataclass(value):
        return None
    return {field.name: getattr(value, field.name) for field in fields(value)}
