"""Reads the parameters of CUDA kernels from their source, and converts Python arguments to them.

The CUDA source is the only declaration of a kernel's parameters, of the structs that it takes by
value and of enumerations. Python passes arguments by name:

| declared as | argument |
|---|---|
| `const real* x` | array in C order with this element type, or None for a null pointer |
| `int n`, `int64 n`, `uint32 n` | int |
| `real shift`, `double shift` | float or int |
| `Activation kind`, an enumeration | name of an enumerator in lower case, such as "relu" |
| `PoolShape shape`, a struct | dataclass or mapping with the members; None if all are 0 |

Arrays as members of structs take sequences; elements that are not given are 0. A type may also be
the name of a compiler option, such as `PIXEL`, whose value is the type.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
# Type, a space or an asterisk, names, and the length of an array.
_DECLARATION = re.compile(r"(\w+)(\s*\*\s*|\s+)(\w+(?:,\s*\w+)*)(?:\[(\w+)\])?")
_QUALIFIERS = re.compile(r"\b(?:const|volatile|__restrict__|__grid_constant__)\b")


class ArgumentError(TypeError):
    """An argument of a kernel does not match its declaration."""


@dataclass(frozen=True)
class Type:
    """The type of a parameter, or of a member of a struct.

    Attributes:
        name: name of the type in CUDA.
        dtype: how NumPy stores a value; a pointer is stored as its address.
        element: type of the elements that a pointer points to.
        enumerators: names of an enumeration in lower case.
        members: members of a struct.
        length: number of elements of a member that is an array, else 0.
    """

    name: str
    dtype: np.dtype[Any]
    element: np.dtype[Any] | None = None
    enumerators: tuple[str, ...] = ()
    members: Mapping[str, "Type"] = field(default_factory=dict)
    length: int = 0

    def convert(self, value: Any) -> Any:
        """Return what CuPy passes for an argument.

        Raises:
            ArgumentError: the argument does not match the type.
        """
        if self.length:
            return self._convert_elements(value)
        if self.members:
            return self._convert_members(value)
        if self.element is not None:
            return self._check_array(value)
        if self.enumerators:
            if value not in self.enumerators:
                expected = ", ".join(self.enumerators)
                raise ArgumentError(f"expected one of {expected}, got {value!r}")
            return np.int32(self.enumerators.index(value))
        accepted = (int, np.integer) if self.dtype.kind in "iu" else (int, float, np.number)
        if not isinstance(value, accepted):
            raise ArgumentError(f"expected a number of type {self.dtype}, got {value!r}")
        try:
            return self.dtype.type(value)
        except OverflowError:
            raise ArgumentError(f"{value} does not fit {self.dtype}") from None

    def _check_array(self, array: Any) -> Any:
        if array is None:
            return np.uint64(0)
        if getattr(array, "dtype", None) != self.element:
            found = getattr(array, "dtype", type(array).__name__)
            raise ArgumentError(f"expected an array of {self.element}, got {found}")
        if not array.flags.c_contiguous:
            raise ArgumentError("expected an array in C order; copy it with ascontiguousarray()")
        return array

    def _convert_members(self, value: Any) -> NDArray[Any]:
        """Return a structured array with one element, which CuPy passes by value."""
        record = np.zeros((), self.dtype)
        if value is None:
            return record
        given = value if isinstance(value, Mapping) else getattr(value, "__dict__", None)
        if given is None:
            expected = f"the members {', '.join(self.members)} of {self.name}"
            raise ArgumentError(f"expected {expected}, got {value!r}")
        for name, converted in convert_all(f"struct {self.name}", self.members, given).items():
            is_array = self.members[name].element is not None and given[name] is not None
            record[name] = converted.data.ptr if is_array else converted
        return record

    def _convert_elements(self, values: Sequence[Any]) -> NDArray[Any]:
        if len(values) > self.length:
            raise ArgumentError(f"expected at most {self.length} elements, got {len(values)}")
        elements = np.zeros(self.length, self.dtype)
        for index, value in enumerate(values):
            elements[index] = replace(self, length=0).convert(value)
        return elements


def convert_all(owner: str, types: Mapping[str, Type], given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the arguments of a kernel or the members of a struct, in the declared order.

    Raises:
        ArgumentError: one is missing, unknown, or does not match its type; the message has `owner`.
    """
    if given.keys() != types.keys():
        raise ArgumentError(f"{owner} takes {', '.join(types)}; got {', '.join(given)}")
    converted = {}
    for name, declared in types.items():
        try:
            converted[name] = declared.convert(given[name])
        except ArgumentError as error:
            raise ArgumentError(f"{owner}, {name}: {error}") from None
    return converted


def enumerators(source: str, name: str) -> tuple[str, ...]:
    """Return the names of an enumeration in lower case, as arguments have them."""
    return _Types(source, {}).find(name).enumerators


def struct_members(source: str, name: str) -> tuple[str, ...]:
    """Return the names of a struct's members in their order."""
    return tuple(_Types(source, {"REAL": "double"}).find(name).members)


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
    found: dict[str, Type] = {}
    for declaration in declarations.split(","):
        found |= types.declared(declaration)
    return found


class _Types:
    """The types of a source for some compiler options."""

    def __init__(self, source: str, options: Options) -> None:
        text = _COMMENT.sub("", source)
        self._structs = dict(_STRUCT.findall(text))
        self._enums = dict(_ENUM.findall(text))
        self._options = options

    def declared(self, declaration: str) -> dict[str, Type]:
        """Return the variables that a declaration such as `int rows, columns` declares."""
        match = _DECLARATION.fullmatch(_QUALIFIERS.sub("", declaration).strip())
        if match is None:
            raise ValueError(f"cannot read the declaration {declaration.strip()!r}")
        name, separator, variables, length = match.groups()
        found = self.find(name, is_pointer="*" in separator)
        if length:
            found = replace(found, length=int(self._options.get(length, length)))
        return {variable.strip(): found for variable in variables.split(",")}

    def find(self, name: str, *, is_pointer: bool = False) -> Type:
        """Return the type of this name: a number, an enumeration, a struct or a pointer."""
        scalar = SCALARS.get(str(self._options.get("REAL" if name == "real" else name, name)))
        if scalar and is_pointer:
            return Type(f"{name}*", np.dtype("uint64"), element=np.dtype(scalar))
        if scalar:
            return Type(name, np.dtype(scalar))
        if is_pointer:
            raise ValueError(f"cannot pass a pointer to {name}")
        if name in self._enums:
            names = tuple(part.strip().lower() for part in self._enums[name].split(","))
            return Type(name, np.dtype("int32"), enumerators=names)
        if name not in self._structs:
            raise ValueError(f"unknown type {name}")
        members: dict[str, Type] = {}
        for declaration in self._structs[name].split(";"):
            if "(" in declaration or not declaration.strip():
                break  # the functions of a struct follow its data
            members |= self.declared(declaration)
        layout = [(key, member.dtype, member.length or ()) for key, member in members.items()]
        return Type(name, np.dtype(layout, align=True), members=members)
