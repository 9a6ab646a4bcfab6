"""Vector instructions: the few inner loops that a compiler does not find by itself.

LLVM vectorises a plain loop if it can prove that the arrays do not overlap and if the loop is long.
The inner loops of a small network are eight numbers long. So these functions, called from compiled
code like any other, say outright which numbers lie in one vector register, and which registers hold
sums until the end of a loop.

A vector is `LANES` numbers. All places (`…_at`, `…_step`, offsets) are counted in numbers from the
beginning of a one-dimensional array; nothing checks them.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from backends.numba_kernels.compilation import instructions

LANES = 8

_INDEX = ir.IntType(64)
_LANE = ir.IntType(32)


class _Emitter:
    """Writes LLVM instructions on vectors of one element type."""

    def __init__(self, context: Any, builder: Any, element: Any) -> None:
        self.context = context
        self.builder = builder
        self.element = context.get_value_type(element)
        self.vector = ir.VectorType(self.element, LANES)

    def data(self, array_type: Any, array: Any) -> Any:
        """Return the pointer to an array's first number."""
        return self.context.make_array(array_type)(self.context, self.builder, array).data

    def index(self, integer_type: Any, integer: Any) -> Any:
        """Return any integer as an index."""
        return self.context.cast(self.builder, integer, integer_type, types.uintp)

    def constant(self, value: int) -> Any:
        """Return a known index."""
        return ir.Constant(_INDEX, value)

    def load_index(self, pointer: Any, at: Any) -> Any:
        """Load an unsigned integer of any width."""
        value = self.builder.load(self.builder.gep(pointer, [at]))
        return value if value.type == _INDEX else self.builder.zext(value, _INDEX)

    def load(self, pointer: Any, at: Any) -> Any:
        """Load a vector."""
        return self.builder.load(self._vector_pointer(pointer, at), align=1)

    def store(self, value: Any, pointer: Any, at: Any) -> None:
        """Store a vector."""
        self.builder.store(value, self._vector_pointer(pointer, at), align=1)

    def load_spread(self, pointer: Any, at: Any) -> Any:
        """Load one number, converted to the element type, into all lanes."""
        value = self.builder.load(self.builder.gep(pointer, [at]))
        if value.type != self.element:
            value = self.builder.uitofp(value, self.element)
        return self.spread(value)

    def spread(self, value: Any) -> Any:
        """Return a vector that holds one number in all lanes."""
        empty = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.Constant(_LANE, 0))
        return self.builder.shuffle_vector(
            first, empty, ir.Constant(ir.VectorType(_LANE, LANES), None)
        )

    def register(self) -> Any:
        """Return a place for a vector, which becomes a register."""
        return cgutils.alloca_once(self.builder, self.vector)  # type: ignore[no-untyped-call]

    def multiply_add(self, a: Any, b: Any, total: Any) -> Any:
        """Return a·b + total, in one instruction where the processor has it."""
        product = self.builder.fmul(a, b, flags=("contract",))
        return self.builder.fadd(product, total, flags=("contract",))

    def _vector_pointer(self, pointer: Any, at: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(pointer, [at]), ir.PointerType(self.vector))


def products(rows: int, vectors: int, *, x_step: int, accumulate: bool) -> Callable[..., None]:
    """Make the function that sums outer products in registers.

    y[y_at + r·y_step + l] = start[start_at + l]
                             + Σₖ x[x_at + r·x_step + offsets[k]] · w[w_at + k·width + l]

    for r < `rows` and l < width = `vectors`·LANES; with `accumulate`, y itself is the start. One
    row of w meets `rows` numbers of x: a convolution at neighbouring outputs, or the gradient of
    neighbouring taps.
    """

    @instructions
    def kernel(
        typing: Any,
        y: Any, y_at: Any, y_step: Any,
        start: Any, start_at: Any,
        x: Any, x_at: Any, offsets: Any,
        w: Any, w_at: Any,
        count: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(y, y_at, y_step, start, start_at, x, x_at, offsets, w, w_at, count)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, y.dtype)
            kinds, values = signature.args, arguments
            y_data, start_data, x_data, offset_data, w_data = (
                emit.data(kinds[i], values[i]) for i in (0, 3, 5, 7, 8)
            )
            y_first, y_stride, start_first, x_first, w_first, number = (
                emit.index(kinds[i], values[i]) for i in (1, 2, 4, 6, 9, 10)
            )
            places = [
                builder.add(
                    builder.add(y_first, builder.mul(y_stride, emit.constant(row))),
                    emit.constant(vector * LANES),
                )
                for row in range(rows)
                for vector in range(vectors)
            ]
            sums = [emit.register() for _ in places]
            for number_of_sum, (place, total) in enumerate(zip(places, sums, strict=True)):
                if accumulate:
                    first = emit.load(y_data, place)
                else:
                    lane = emit.constant(number_of_sum % vectors * LANES)
                    first = emit.load(start_data, builder.add(start_first, lane))
                builder.store(first, total)
            x_base = builder.gep(x_data, [x_first])
            w_base = builder.gep(w_data, [w_first])
            with cgutils.for_range(builder, number, intp=_INDEX) as loop:
                offset = emit.load_index(offset_data, loop.index)
                w_row = builder.mul(loop.index, emit.constant(vectors * LANES))
                weights = [
                    emit.load(w_base, builder.add(w_row, emit.constant(vector * LANES)))
                    for vector in range(vectors)
                ]
                for row in range(rows):
                    at = builder.add(offset, emit.constant(row * x_step))
                    factor = emit.load_spread(x_base, at)
                    for vector in range(vectors):
                        total = sums[row * vectors + vector]
                        value = emit.multiply_add(factor, weights[vector], builder.load(total))
                        builder.store(value, total)
            for place, total in zip(places, sums, strict=True):
                emit.store(builder.load(total), y_data, place)
            return context.get_dummy_value()

        return signature, generate

    return kernel


def sum_of_rows(vectors: int) -> Callable[..., None]:
    """Make the function that adds up the rows of a table that a sparse vector names.

    y[y_at + l] = Σₖ values[k] · table[table_at + columns[k]·width + l]

    for first ≤ k < last and l < `vectors`·LANES.
    """

    @instructions
    def kernel(
        typing: Any,
        y: Any, y_at: Any,
        table: Any, table_at: Any, width: Any,
        columns: Any, values: Any, first: Any, last: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(y, y_at, table, table_at, width, columns, values, first, last)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, y.dtype)
            kinds = signature.args
            y_data, table_data, column_data, value_data = (
                emit.data(kinds[i], arguments[i]) for i in (0, 2, 5, 6)
            )
            place, table_first, stride, begin, end = (
                emit.index(kinds[i], arguments[i]) for i in (1, 3, 4, 7, 8)
            )
            zero = ir.Constant(emit.vector, [0.0] * LANES)
            sums = [emit.register() for _ in range(vectors)]
            for total in sums:
                builder.store(zero, total)
            table_base = builder.gep(table_data, [table_first])
            with cgutils.for_range(builder, builder.sub(end, begin), intp=_INDEX) as loop:
                at = builder.add(begin, loop.index)
                row = builder.mul(emit.load_index(column_data, at), stride)
                factor = emit.load_spread(value_data, at)
                for number, total in enumerate(sums):
                    part = emit.load(table_base, builder.add(row, emit.constant(number * LANES)))
                    builder.store(emit.multiply_add(factor, part, builder.load(total)), total)
            for number, total in enumerate(sums):
                emit.store(
                    builder.load(total), y_data, builder.add(place, emit.constant(number * LANES))
                )
            return context.get_dummy_value()

        return signature, generate

    return kernel


def add_to_rows(vectors: int) -> Callable[..., None]:
    """Make the function that adds multiples of a vector to the rows a sparse vector names.

    table[table_at + columns[k]·width + l] += scale · values[k] · x[x_at + l]

    for first ≤ k < last and l < `vectors`·LANES.
    """

    @instructions
    def kernel(
        typing: Any,
        table: Any, table_at: Any, width: Any,
        columns: Any, values: Any, first: Any, last: Any,
        x: Any, x_at: Any, scale: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(table, table_at, width, columns, values, first, last, x, x_at, scale)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, table.dtype)
            kinds = signature.args
            table_data, column_data, value_data, x_data = (
                emit.data(kinds[i], arguments[i]) for i in (0, 3, 4, 7)
            )
            table_first, stride, begin, end, place = (
                emit.index(kinds[i], arguments[i]) for i in (1, 2, 5, 6, 8)
            )
            factor = emit.spread(context.cast(builder, arguments[9], kinds[9], table.dtype))
            scaled = [
                builder.fmul(
                    factor, emit.load(x_data, builder.add(place, emit.constant(number * LANES)))
                )
                for number in range(vectors)
            ]
            table_base = builder.gep(table_data, [table_first])
            with cgutils.for_range(builder, builder.sub(end, begin), intp=_INDEX) as loop:
                at = builder.add(begin, loop.index)
                row = builder.mul(emit.load_index(column_data, at), stride)
                value = emit.load_spread(value_data, at)
                for number, part in enumerate(scaled):
                    target = builder.add(row, emit.constant(number * LANES))
                    before = emit.load(table_base, target)
                    emit.store(emit.multiply_add(value, part, before), table_base, target)
            return context.get_dummy_value()

        return signature, generate

    return kernel


@instructions
def add_scaled(typing: Any, y: Any, y_at: Any, x: Any, x_at: Any, scale: Any, vectors: Any) -> Any:
    """Add a multiple of one run of numbers to another.

    y[y_at + l] += scale · x[x_at + l], for l < `vectors`·LANES.
    """
    signature = types.void(y, y_at, x, x_at, scale, vectors)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, y.dtype)
        kinds = signature.args
        y_data, x_data = (emit.data(kinds[i], arguments[i]) for i in (0, 2))
        y_first, x_first, number = (emit.index(kinds[i], arguments[i]) for i in (1, 3, 5))
        factor = emit.spread(context.cast(builder, arguments[4], kinds[4], y.dtype))
        with cgutils.for_range(builder, number, intp=_INDEX) as loop:
            at = builder.mul(loop.index, emit.constant(LANES))
            target = builder.add(y_first, at)
            part = emit.load(x_data, builder.add(x_first, at))
            total = emit.multiply_add(factor, part, emit.load(y_data, target))
            emit.store(total, y_data, target)
        return context.get_dummy_value()

    return signature, generate


@instructions
def maximum_of_four(
    typing: Any,
    y: Any, mask: Any, at: Any,
    x: Any, x_at: Any, right: Any, below: Any,
    all_ties: Any,
) -> Any:  # fmt: skip
    """Pool a window of 2×2 in `LANES` channels at once, and note which positions hold the maximum.

    The window is x at x_at, x_at + right, x_at + below and x_at + right + below, which are bits 0
    to 3 of `mask` (uint8); y and mask are written at `at`. With `all_ties` every position that
    equals the maximum has its bit set, else the first.
    """
    signature = types.void(y, mask, at, x, x_at, right, below, all_ties)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, y.dtype)
        kinds = signature.args
        y_data, mask_data, x_data = (emit.data(kinds[i], arguments[i]) for i in (0, 1, 3))
        place, first, across, down = (emit.index(kinds[i], arguments[i]) for i in (2, 4, 5, 6))
        corners = [first, builder.add(first, across), builder.add(first, down)]
        corners.append(builder.add(corners[2], across))
        values = [emit.load(x_data, corner) for corner in corners]
        maximum = values[0]
        for value in values[1:]:
            # Not "value > maximum": a NaN must win.
            wins = builder.fcmp_unordered("ugt", value, maximum)
            maximum = builder.select(wins, value, maximum)
        emit.store(maximum, y_data, place)
        bytes_type = ir.VectorType(ir.IntType(8), LANES)
        bits = ir.Constant(bytes_type, [0] * LANES)
        several = builder.trunc(arguments[7], ir.IntType(1))
        for number, value in enumerate(values):
            hit = builder.fcmp_unordered("ueq", value, maximum)
            bit = builder.select(
                hit,
                ir.Constant(bytes_type, [1 << number] * LANES),
                ir.Constant(bytes_type, [0] * LANES),
            )
            none_yet = builder.icmp_unsigned("==", bits, ir.Constant(bytes_type, [0] * LANES))
            first_bit = builder.select(none_yet, bit, ir.Constant(bytes_type, [0] * LANES))
            bits = builder.or_(bits, builder.select(several, bit, first_bit))
        pointer = builder.bitcast(builder.gep(mask_data, [place]), ir.PointerType(bytes_type))
        builder.store(bits, pointer, align=1)
        return context.get_dummy_value()

    return signature, generate


@instructions
def spread_to_four(
    typing: Any,
    dx: Any, dx_at: Any, right: Any, below: Any,
    dy: Any, mask: Any, at: Any,
) -> Any:  # fmt: skip
    """Hand the gradient of a window of 2×2 to the positions in its mask, and 0 to the others.

    The reverse of `maximum_of_four`: writes dx at dx_at, dx_at + right, dx_at + below and
    dx_at + right + below from dy and mask at `at`.
    """
    signature = types.void(dx, dx_at, right, below, dy, mask, at)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, dx.dtype)
        kinds = signature.args
        dx_data, dy_data, mask_data = (emit.data(kinds[i], arguments[i]) for i in (0, 4, 5))
        first, across, down, place = (emit.index(kinds[i], arguments[i]) for i in (1, 2, 3, 6))
        corners = [first, builder.add(first, across), builder.add(first, down)]
        corners.append(builder.add(corners[2], across))
        bytes_type = ir.VectorType(ir.IntType(8), LANES)
        pointer = builder.bitcast(builder.gep(mask_data, [place]), ir.PointerType(bytes_type))
        bits = builder.load(pointer, align=1)
        gradient = emit.load(dy_data, place)
        nothing = ir.Constant(emit.vector, [0.0] * LANES)
        for number, corner in enumerate(corners):
            wanted = builder.and_(bits, ir.Constant(bytes_type, [1 << number] * LANES))
            hit = builder.icmp_unsigned("!=", wanted, ir.Constant(bytes_type, [0] * LANES))
            emit.store(builder.select(hit, gradient, nothing), dx_data, corner)
        return context.get_dummy_value()

    return signature, generate
