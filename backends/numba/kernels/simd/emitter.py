"""The decorator for SIMD kernels, and the values that it passes to them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from backends.numba.kernels.compilation import intrinsic
from backends.numba.kernels.vector_width import lanes_of, max_sums

CACHE_LINE = 64  # bytes
MAX_ACCUMULATORS = 14  # vectors; AVX2 has 16 registers, and the operands need two

_INDEX = ir.IntType(64)
_LANE = ir.IntType(32)


def simd_kernel(
    function: Callable[..., Any], *, lanes: int | None = None, min_lanes: int = 1,
    returns_number: bool = False,
) -> Callable[..., Any]:  # fmt: skip
    """Return a function that compiled code can call; `function` emits its instructions.

    `function` receives an `Emitter` and then one value per argument: a `Pointer` for a pointer, an
    `Index` for an integer, and for a floating-point number a vector with this number in all lanes.
    The first argument is a pointer, whose element type is that of all vectors.

    Args:
        function: emits the instructions.
        lanes: number of lanes; by default a vector fills one register (see `vector_width`).
        min_lanes: minimum number of lanes.
        returns_number: whether `function` returns a number of the element type.
    """

    @wraps(function)  # Numba reads the names of the parameters
    def typed(typing: Any, *kinds: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            element = signature.args[0].dtype
            emit = Emitter(context, builder, element, lanes, min_lanes)

            def convert(kind: Any, value: Any) -> Any:
                if isinstance(kind, types.CPointer):
                    return Pointer(emit, value)
                if isinstance(kind, types.Integer):
                    return Index(emit, context.cast(builder, value, kind, types.uintp))
                return emit.broadcast(context.cast(builder, value, kind, element))

            result = function(emit, *map(convert, signature.args, arguments))
            return result if returns_number else context.get_dummy_value()

        result_type = kinds[0].dtype if returns_number else types.void
        return result_type(*kinds), generate

    return intrinsic(typed)


class Index:
    """An unsigned 64-bit integer at run time, with the operators +, −, · and //."""

    def __init__(self, emit: "Emitter", value: Any) -> None:
        self._emit = emit
        self.value = value

    def __add__(self, other: "Index | int") -> "Index":
        return Index(self._emit, self._emit.builder.add(self.value, index_value(other)))

    def __sub__(self, other: "Index | int") -> "Index":
        return Index(self._emit, self._emit.builder.sub(self.value, index_value(other)))

    def __mul__(self, other: "Index | int") -> "Index":
        return Index(self._emit, self._emit.builder.mul(self.value, index_value(other)))

    def __floordiv__(self, other: "Index | int") -> "Index":
        return Index(self._emit, self._emit.builder.udiv(self.value, index_value(other)))

    __rmul__ = __mul__

    def at_most(self, largest: "Index") -> "Index":
        """Return the smaller of two indices."""
        builder = self._emit.builder
        is_smaller = builder.icmp_unsigned("<", self.value, largest.value)
        return Index(self._emit, builder.select(is_smaller, self.value, largest.value))


def index_value(value: Index | int) -> Any:
    """Return an index or a compile-time integer as an LLVM value."""
    return value.value if isinstance(value, Index) else ir.Constant(_INDEX, value)


class Pointer:
    """The address of a number at run time. Vectors have `lanes` numbers."""

    def __init__(self, emit: "Emitter", address: Any) -> None:
        self._emit = emit
        self.lanes = emit.lanes
        self.address = address

    def __add__(self, offset: Index | int) -> "Pointer":
        return Pointer(self._emit, self._emit.builder.gep(self.address, [index_value(offset)]))

    def rows(self, stride: Index, count: int) -> list["Pointer"]:
        """Return pointers to the beginning of `count` rows."""
        return [self + stride * row for row in range(count)]

    def load(self, offset: Index | int = 0) -> Any:
        """Load a vector, and convert it to the element type."""
        emit = self._emit
        kind = ir.VectorType(self.address.type.pointee, emit.lanes)
        vector = emit.builder.load(self._cast(offset, kind), align=1)
        return emit.convert(vector, emit.vector)

    def store(self, vector: Any, offset: Index | int = 0) -> None:
        """Store a vector."""
        self._emit.builder.store(vector, self._cast(offset, vector.type), align=1)

    def store_bytes(self, vector: Any, offset: Index | int = 0) -> None:
        """Store a vector of integers as bytes."""
        kind = self._emit.bytes
        narrow = self._emit.builder.trunc(vector, kind)
        self._emit.builder.store(narrow, self._cast(offset, kind), align=1)

    def load_broadcast(self, offset: Index | int = 0) -> Any:
        """Load one number, convert it to the element type, and return it in all lanes."""
        emit = self._emit
        value = emit.builder.load((self + offset).address)
        return emit.broadcast(emit.convert(value, emit.element))

    def load_few(self, offset: Index | int, count: int) -> Any:
        """Load a vector of `count` numbers."""
        kind = ir.VectorType(self.address.type.pointee, count)
        return self._emit.builder.load(self._cast(offset, kind), align=1)

    def load_columns(self, offset: Index | int, count: int) -> Any:
        """Load `count` neighboring numbers and repeat them in all lanes: a, b, a, b, ..."""
        emit = self._emit
        few = self.load_few(offset, count)
        return emit.shuffle(few, few, [lane % count for lane in range(emit.lanes)])

    def load_spread(self, offset: Index | int, count: int) -> Any:
        """Load `count` neighboring numbers and repeat each in neighboring lanes: a, a, b, b, ..."""
        emit = self._emit
        few = self.load_few(offset, count)
        return emit.shuffle(few, few, [lane * count // emit.lanes for lane in range(emit.lanes)])

    def load_index(self, offset: Index | int = 0) -> Index:
        """Load an unsigned integer of any width as an index."""
        value = self._emit.builder.load((self + offset).address)
        wide = value if value.type == _INDEX else self._emit.builder.zext(value, _INDEX)
        return Index(self._emit, wide)

    def store_number(self, number: Any, offset: Index | int = 0) -> None:
        """Store one number."""
        self._emit.builder.store(number, (self + offset).address)

    def _cast(self, offset: Index | int, kind: Any) -> Any:
        return self._emit.builder.bitcast((self + offset).address, ir.PointerType(kind))


class Accumulator:
    """A vector that loops change; LLVM keeps it in a register."""

    def __init__(self, emit: "Emitter", vector: Any) -> None:
        self._emit = emit
        self._place = cgutils.alloca_once(emit.builder, emit.vector)  # type: ignore[no-untyped-call]
        emit.builder.store(vector, self._place)

    def value(self) -> Any:
        """Return the vector."""
        return self._emit.builder.load(self._place)

    def set(self, a: Any) -> None:
        """Replace the vector by a."""
        self._emit.builder.store(a, self._place)

    def add(self, a: Any) -> None:
        """Add a."""
        self._emit.builder.store(self._emit.builder.fadd(self.value(), a), self._place)

    def add_product(self, a: Any, b: Any) -> None:
        """Add a·b."""
        self._emit.builder.store(self._emit.multiply_add(a, b, self.value()), self._place)


class Emitter:
    """Appends LLVM instructions on vectors of one element type to a function.

    Attributes:
        builder: the LLVM builder.
        element: element type.
        itemsize: size of an element in bytes.
        lanes: number of elements in a vector.
        vector: type of `lanes` elements.
        integer: integer type as wide as an element.
        integers: type of `lanes` such integers.
        bytes: type of `lanes` bytes.
        max_sums: number of vectors that a loop can keep in registers beside its operands.
    """

    def __init__(
        self, context: Any, builder: Any, element: Any, lanes: int | None, min_lanes: int
    ) -> None:
        itemsize = context.get_abi_sizeof(context.get_value_type(element))
        self.builder = builder
        self.element = context.get_value_type(element)
        self.itemsize = itemsize
        self.lanes = max(min_lanes, lanes or lanes_of(itemsize))
        self.max_sums = max_sums(self.lanes * itemsize)
        self.vector = ir.VectorType(self.element, self.lanes)
        self.integer = ir.IntType(8 * itemsize)
        self.integers = ir.VectorType(self.integer, self.lanes)
        self.bytes = ir.VectorType(ir.IntType(8), self.lanes)

    @contextmanager
    def loop(self, count: Index) -> Iterator[Index]:
        """Repeat the body of a `with` statement at run time, for indices 0 to `count` − 1."""
        with cgutils.for_range(self.builder, count.value, intp=_INDEX) as loop:
            yield Index(self, loop.index)

    @contextmanager
    def blocks(self, count: Index, size: int) -> Iterator[tuple[Index, Index]]:
        """Repeat the body of a `with` statement for blocks of 0 to `count` − 1.

        Yield the first index and the length of each; all have `size` except the last.
        """
        with self.loop((count + (size - 1)) // size) as number:
            begin = number * size
            yield begin, (count - begin).at_most(Index(self, index_value(size)))

    def buffer(self, length: int) -> Pointer:
        """Return uninitialized memory for `length` elements, as long as the function runs."""
        kind = ir.ArrayType(self.element, length)
        # `cgutils.alloca_once` would set it to 0 in each call.
        with self.builder.goto_entry_block():
            place = self.builder.alloca(kind)
        place.align = CACHE_LINE
        return Pointer(self, self.builder.bitcast(place, ir.PointerType(self.element)))

    @contextmanager
    def either(self, condition: Index) -> Iterator[tuple[Any, Any]]:
        """Yield the contexts of the instructions for a nonzero condition, and for 0."""
        is_set = self.builder.icmp_unsigned("!=", condition.value, index_value(0))
        with self.builder.if_else(is_set) as branches:
            yield branches

    def tiles(self, count: Index, sizes: tuple[int, ...]) -> Iterator[tuple[Index, int]]:
        """Divide 0 to `count` − 1 into tiles of `sizes`; yield the first index and size of each.

        Every tile has the first size that is not larger than the rest; the last size is 1. The body
        of the `for` statement emits the instructions for each size once.
        """
        builder = self.builder
        place = cgutils.alloca_once(builder, _INDEX)  # type: ignore[no-untyped-call]
        builder.store(index_value(0), place)
        next_tile = builder.append_basic_block()
        builder.branch(next_tile)
        builder.position_at_end(next_tile)
        begin = Index(self, builder.load(place))
        rest = (count - begin).value
        for size in sizes:
            body, otherwise = builder.append_basic_block(), builder.append_basic_block()
            builder.cbranch(builder.icmp_unsigned(">=", rest, index_value(size)), body, otherwise)
            builder.position_at_end(body)
            yield begin, size
            builder.store((begin + size).value, place)
            builder.branch(next_tile)
            builder.position_at_end(otherwise)

    def constant(self, value: float) -> Any:
        """Return a vector with a compile-time number in all lanes."""
        return ir.Constant(self.vector, [value] * self.lanes)

    def integer_constant(self, value: int) -> Any:
        """Return a vector with a compile-time integer in all lanes."""
        return ir.Constant(self.integers, [value] * self.lanes)

    def broadcast(self, number: Any) -> Any:
        """Return a vector with a number of any type in all lanes."""
        empty = ir.Constant(ir.VectorType(number.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(empty, number, ir.Constant(_LANE, 0))
        return self.builder.shuffle_vector(
            first, empty, ir.Constant(ir.VectorType(_LANE, self.lanes), None)
        )

    def positions(self, first: Index | int) -> Any:
        """Return the integers first, first + 1, ..."""
        steps = ir.Constant(self.integers, list(range(self.lanes)))
        return self.builder.add(self.repeat(first), steps)

    def repeat(self, index: Index | int) -> Any:
        """Return a vector of integers with an index in all lanes."""
        value = index_value(index)
        is_narrow = self.integer.width < value.type.width
        return self.broadcast(self.builder.trunc(value, self.integer) if is_narrow else value)

    def first_lane(self, vector: Any) -> Any:
        """Return the first number of a vector."""
        return self.builder.extract_element(vector, ir.Constant(_LANE, 0))

    def convert(self, value: Any, kind: Any) -> Any:
        """Convert unsigned integers or floating-point numbers to a floating-point type."""
        if value.type == kind:
            return value
        given = getattr(value.type, "element", value.type)
        if isinstance(given, ir.IntType):
            return self.builder.uitofp(value, kind)
        is_narrower = isinstance(given, ir.FloatType)
        return self.builder.fpext(value, kind) if is_narrower else self.builder.fptrunc(value, kind)

    def shuffle(self, a: Any, b: Any, positions: Iterable[int]) -> Any:
        """Return the vector of the numbers at `positions` of the concatenation of a and b."""
        places = list(positions)
        constant = ir.Constant(ir.VectorType(_LANE, len(places)), places)
        return self.builder.shuffle_vector(a, b, constant)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a·b + c, in one instruction if the processor has it."""
        product = self.builder.fmul(a, b, flags=("contract",))
        return self.builder.fadd(product, c, flags=("contract",))

    def call(self, name: str, *vectors: Any) -> Any:
        """Call an LLVM function of vectors that returns a vector."""
        kinds = tuple(vector.type for vector in vectors)
        return self.builder.call(self.llvm_function(name, self.vector, kinds), vectors)

    def log(self, number: Any) -> Any:
        """Return the natural logarithm of one number."""
        function = self.llvm_function("llvm.log", self.element, (self.element,))
        return self.builder.call(function, (number,))

    def prefetch(self, begin: Pointer, end: Pointer) -> None:
        """Start to load the cache lines from `begin` up to `end`."""
        builder, byte, flag = self.builder, ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module,
            ir.FunctionType(ir.VoidType(), (byte, flag, flag, flag)),
            "llvm.prefetch.p0i8",
        )
        first_byte = Index(self, builder.ptrtoint(begin.address, _INDEX))
        length = Index(self, builder.ptrtoint(end.address, _INDEX)) - first_byte
        with self.loop((length + (CACHE_LINE - 1)) // CACHE_LINE) as line:
            address = builder.inttoptr((first_byte + line * CACHE_LINE).value, byte)
            # The flags: a read (0), to be kept in all cache levels (3), of data (1).
            builder.call(function, (address, *(ir.Constant(flag, value) for value in (0, 3, 1))))

    def llvm_function(self, name: str, result: Any, arguments: tuple[Any, ...]) -> Any:
        """Return an LLVM function that is overloaded for the type of its first argument.

        Args:
            name: name without type suffix, such as "llvm.fma".
            result: type of the result.
            arguments: types of the arguments.
        """
        suffix = {"float": "f32", "double": "f64"}[str(self.element)]
        if arguments[0] == self.vector:
            suffix = f"v{self.lanes}{suffix}"
        return cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            self.builder.module,
            ir.FunctionType(result, arguments),
            f"{name}.{suffix}",
        )
