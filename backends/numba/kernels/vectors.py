"""Vector instructions: the few inner loops that a compiler does not find by itself.

LLVM vectorises a plain loop if it can prove that the arrays do not overlap and if the loop is long.
The inner loops of a small network are eight numbers long. So these functions, called from compiled
code like any other, say outright which numbers lie in one vector register, and which registers hold
sums until the end of a loop.

A vector is `LANES` numbers. All places (`…_at`, `…_step`, offsets) are counted in numbers from the
beginning of a one-dimensional array; nothing checks them.
"""

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from backends.numba.kernels.compilation import instructions

LANES = 8
CACHE_LINE = 64  # bytes
MOST_SUMS = 14  # vectors, that stay in the 16 registers of a processor with AVX2

# Of a window of 2×2 (down, right), in the order of the bits of a tie mask.
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))

_INDEX = ir.IntType(64)
_LANE = ir.IntType(32)


class _Emitter:
    """Writes LLVM instructions on vectors of one element type."""

    def __init__(self, context: Any, builder: Any, element: Any) -> None:
        self.context = context
        self.builder = builder
        self.element = context.get_value_type(element)
        self.vector = ir.VectorType(self.element, LANES)
        self.integer = ir.IntType(32 if str(self.element) == "float" else 64)
        self.integers = ir.VectorType(self.integer, LANES)

    def data(self, array_type: Any, array: Any) -> Any:
        """Return the pointer to an array's first number."""
        return self.context.make_array(array_type)(self.context, self.builder, array).data

    def index(self, integer_type: Any, integer: Any) -> Any:
        """Return any integer as an index."""
        return self.context.cast(self.builder, integer, integer_type, types.uintp)

    def constant(self, value: int) -> Any:
        """Return a known index."""
        return ir.Constant(_INDEX, value)

    def rows(self, pointer: Any, first: Any, step: Any, count: int) -> list[Any]:
        """Return pointers to so many rows of numbers."""
        builder = self.builder
        return [
            builder.gep(pointer, [builder.add(first, builder.mul(step, self.constant(row)))])
            for row in range(count)
        ]

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
        return self._in_all_lanes(self.vector, value)

    def register(self) -> Any:
        """Return a place for a vector, which becomes a register."""
        return cgutils.alloca_once(self.builder, self.vector)  # type: ignore[no-untyped-call]

    def multiply_add(self, a: Any, b: Any, total: Any) -> Any:
        """Return a·b + total, in one instruction where the processor has it."""
        product = self.builder.fmul(a, b, flags=("contract",))
        return self.builder.fadd(product, total, flags=("contract",))

    def sum_of_lanes(self, vector: Any) -> Any:
        """Return the sum of the numbers of a vector, in an order that suits the processor."""
        function = self._function(
            "llvm.vector.reduce.fadd", self.element, (self.element, self.vector)
        )
        zero = ir.Constant(self.element, 0.0)
        return self.builder.call(function, (zero, vector), fastmath=("reassoc",))

    def add_multiples(self, factor: Any, vectors: list[Any], sums: list[Any]) -> None:
        """Add `factor` times each vector to the register of its sum."""
        for vector, total in zip(vectors, sums, strict=True):
            self.builder.store(self.multiply_add(factor, vector, self.builder.load(total)), total)

    def pool(self, values: list[Any], y: Any, mask: Any, at: Any, all_ties: Any) -> None:
        """Store the largest of each lane, and a byte with the bits of the values that equal it."""
        builder = self.builder
        maximum = values[0]
        for value in values[1:]:
            # Not "value > maximum": a NaN must win.
            wins = builder.fcmp_unordered("ugt", value, maximum)
            maximum = builder.select(wins, value, maximum)
        self.store(maximum, y, at)
        # In integers as wide as the numbers: they become bytes only once.
        one_tie = builder.icmp_unsigned("==", all_ties, ir.Constant(all_ties.type, 0))
        one_tie = self._in_all_lanes(self.integers, builder.sext(one_tie, self.integer))
        bits = taken = self._integers(0)
        for number, value in enumerate(values):
            hit = builder.fcmp_unordered("ueq", value, maximum)
            hit = builder.sext(hit, self.integers)
            counts = builder.and_(hit, builder.not_(builder.and_(taken, one_tie)))
            bits = builder.or_(bits, builder.and_(counts, self._integers(1 << number)))
            taken = builder.or_(taken, hit)
        bits = builder.trunc(bits, self._bytes(0).type)
        builder.store(bits, self._byte_pointer(mask, at), align=1)

    def unpool(self, dy: Any, mask: Any, at: Any) -> list[Any]:
        """Return the gradient of each position of a window: that of the maximum, or 0."""
        builder = self.builder
        bits = builder.zext(builder.load(self._byte_pointer(mask, at), align=1), self.integers)
        gradient = builder.bitcast(self.load(dy, at), self.integers)
        values = []
        for number in range(4):
            bit = self._integers(1 << number)
            hit = builder.icmp_unsigned("==", builder.and_(bits, bit), bit)
            value = builder.and_(builder.sext(hit, self.integers), gradient)
            values.append(builder.bitcast(value, self.vector))
        return values

    def constants(self, value: float) -> Any:
        """Return a vector of a known number."""
        return ir.Constant(self.vector, [value] * LANES)

    def exponential(self, x: Any) -> Any:
        """Return exp(x) to the last bits, for x of at most 0; a NaN stays.

        exp(x) = 2ⁿ exp(r) with n = round(x / ln 2), so |r| ≤ ln 2 / 2, where a Taylor series is
        short. Below what has a normal result, x is raised to where it begins.
        """
        builder = self.builder
        is_single = str(self.element) == "float"
        mantissa, bias, terms = (23, 127, 8) if is_single else (52, 1023, 14)
        # ln 2 in two parts: n times the first is exact.
        high = 0.693359375 if is_single else 0.693147180369123816490
        low = math.log(2) - high if is_single else 1.90821492927058770002e-10
        lowest = self.constants(-(bias - 1) * math.log(2))
        x = builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)
        n = self._call("llvm.rint", builder.fmul(x, self.constants(1 / math.log(2))))
        # Fused by name: sums may be reordered, and then the parts of ln 2 would be added first.
        rest = self._call("llvm.fma", n, self.constants(-high), x)
        rest = self._call("llvm.fma", n, self.constants(-low), rest)
        value = self.constants(1 / math.factorial(terms - 1))
        for power in reversed(range(terms - 1)):
            value = self.multiply_add(value, rest, self.constants(1 / math.factorial(power)))
        # The conversion that saturates knows what to make of a NaN.
        turns = builder.call(
            self._function(
                "llvm.fptosi.sat", self.integers, (self.vector,), named=(self.integers,)
            ),
            (n,),
        )
        exponent = builder.shl(turns, self._integers(mantissa))
        one = self._integers(bias << mantissa)
        scale = builder.bitcast(builder.add(exponent, one), self.vector)
        return builder.fmul(value, scale)

    def rectified(self, x: Any) -> Any:
        """Return max(x, 0); a NaN stays.

        LLVM makes a branch around a store of a plain choice in place, and does not vectorise it.
        """
        zero = self.constants(0.0)
        return self.builder.select(self.builder.fcmp_ordered("<", x, zero), zero, x)

    def sigmoid(self, x: Any) -> Any:
        """Return 1 / (1 + exp(−x)); a NaN stays."""
        builder = self.builder
        one = self.constants(1.0)
        is_negative = builder.fcmp_ordered("<", x, self.constants(0.0))
        # Only exp(−|x|) ≤ 1 is computed, so nothing overflows.
        negated = builder.fsub(self.constants(0.0), x)
        decay = self.exponential(builder.select(is_negative, x, negated))
        return builder.fdiv(builder.select(is_negative, decay, one), builder.fadd(one, decay))

    def _call(self, name: str, *vectors: Any) -> Any:
        """Call a function of LLVM on vectors."""
        return self.builder.call(
            self._function(name, self.vector, tuple(vector.type for vector in vectors)), vectors
        )

    def _function(
        self, name: str, result: Any, arguments: tuple[Any, ...], *, named: tuple[Any, ...] = ()
    ) -> Any:
        """Return a function of LLVM, whose name ends in the types that it works on."""
        letter = {"float": "f32", "double": "f64", "i32": "i32", "i64": "i64"}
        kinds = [kind.element for kind in (*named, self.vector)]
        ending = "".join(f".v{LANES}{letter[str(kind)]}" for kind in kinds)
        kind = ir.FunctionType(result, arguments)
        return cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            self.builder.module, kind, name + ending
        )

    def _in_all_lanes(self, kind: Any, value: Any) -> Any:
        empty = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.Constant(_LANE, 0))
        return self.builder.shuffle_vector(
            first, empty, ir.Constant(ir.VectorType(_LANE, LANES), None)
        )

    def _integers(self, value: int) -> Any:
        return ir.Constant(self.integers, [value] * LANES)

    def _bytes(self, value: int) -> Any:
        return ir.Constant(ir.VectorType(ir.IntType(8), LANES), [value] * LANES)

    def _byte_pointer(self, pointer: Any, at: Any) -> Any:
        return self.builder.bitcast(
            self.builder.gep(pointer, [at]), ir.PointerType(self._bytes(0).type)
        )

    def _vector_pointer(self, pointer: Any, at: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(pointer, [at]), ir.PointerType(self.vector))


def outer_products(rows: int, vectors: int, *, x_step: int) -> Callable[..., None]:
    """Make the function that sums outer products in registers: a convolution at neighbours.

    y[y_at + r·y_step + l]
        = start[l] + Σₖ x[x_at + r·x_step + offsets[k]] · w[w_at + k·width + l]

    for r < `rows`, k < count and l < width = `vectors`·LANES. A row of w meets `rows` numbers of x.
    """

    @instructions
    def kernel(
        typing: Any,
        y: Any, y_at: Any, y_step: Any,
        start: Any,
        x: Any, x_at: Any, offsets: Any,
        w: Any, w_at: Any,
        count: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(y, y_at, y_step, start, x, x_at, offsets, w, w_at, count)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, y.dtype)
            kinds, values = signature.args, arguments
            y_data, start_data, x_data, offset_data, w_data = (
                emit.data(kinds[i], values[i]) for i in (0, 3, 4, 6, 7)
            )
            y_first, y_stride, x_first, w_first, number = (
                emit.index(kinds[i], values[i]) for i in (1, 2, 5, 8, 9)
            )
            lanes = [emit.constant(vector * LANES) for vector in range(vectors)]
            y_rows = emit.rows(y_data, y_first, y_stride, rows)
            sums = [[emit.register() for _ in lanes] for _ in range(rows)]
            for totals in sums:
                for lane, total in zip(lanes, totals, strict=True):
                    builder.store(emit.load(start_data, lane), total)
            x_base = builder.gep(x_data, [x_first])
            w_base = builder.gep(w_data, [w_first])
            with cgutils.for_range(builder, number, intp=_INDEX) as loop:
                offset = emit.load_index(offset_data, loop.index)
                w_row = builder.mul(loop.index, emit.constant(vectors * LANES))
                weights = [emit.load(w_base, builder.add(w_row, lane)) for lane in lanes]
                for row, totals in enumerate(sums):
                    at = builder.add(offset, emit.constant(row * x_step))
                    emit.add_multiples(emit.load_spread(x_base, at), weights, totals)
            for y_row, totals in zip(y_rows, sums, strict=True):
                for lane, total in zip(lanes, totals, strict=True):
                    emit.store(builder.load(total), y_row, lane)
            return context.get_dummy_value()

        return signature, generate

    return kernel


def tap_products(taps: int, bands: int, vectors: int) -> Callable[..., None]:
    """Make the function that adds up the gradient of some taps of a bank of filters.

    y[y_at + b·y_band + t·width + l]
        += Σₖ x[x_at + b·x_band + t + offsets[k]] · w[k·width + l]

    for b < `bands`, t < `taps`, k < count and l < width = `vectors`·LANES. The taps of a band are
    neighbours in x. Bands are there to have enough sums: an instruction has to wait for the one
    before it on the same sum.
    """

    @instructions
    def kernel(
        typing: Any,
        y: Any, y_at: Any, y_band: Any,
        x: Any, x_at: Any, x_band: Any, offsets: Any,
        w: Any,
        count: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(y, y_at, y_band, x, x_at, x_band, offsets, w, count)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, y.dtype)
            kinds, values = signature.args, arguments
            y_data, x_data, offset_data, w_data = (
                emit.data(kinds[i], values[i]) for i in (0, 3, 6, 7)
            )
            y_first, y_across, x_first, x_across, number = (
                emit.index(kinds[i], values[i]) for i in (1, 2, 4, 5, 8)
            )
            width = vectors * LANES
            lanes = [emit.constant(vector * LANES) for vector in range(vectors)]
            y_bands = emit.rows(y_data, y_first, y_across, bands)
            x_bands = emit.rows(x_data, x_first, x_across, bands)
            sums = [[[emit.register() for _ in lanes] for _ in range(taps)] for _ in range(bands)]
            places = [
                (y_band, emit.constant(tap * width + vector * LANES), sums[band][tap][vector])
                for band, y_band in enumerate(y_bands)
                for tap in range(taps)
                for vector in range(vectors)
            ]
            for y_band, at, total in places:
                builder.store(emit.load(y_band, at), total)
            with cgutils.for_range(builder, number, intp=_INDEX) as loop:
                offset = emit.load_index(offset_data, loop.index)
                w_row = builder.mul(loop.index, emit.constant(width))
                weights = [emit.load(w_data, builder.add(w_row, lane)) for lane in lanes]
                for x_band, band_sums in zip(x_bands, sums, strict=True):
                    for tap, totals in enumerate(band_sums):
                        at = builder.add(offset, emit.constant(tap))
                        emit.add_multiples(emit.load_spread(x_band, at), weights, totals)
            for y_band, at, total in places:
                emit.store(builder.load(total), y_band, at)
            return context.get_dummy_value()

        return signature, generate

    return kernel


def add_products(rows: int, vectors: int) -> Callable[..., None]:
    """Make the function that adds a tile of a matrix product to what is there.

    y[y_at + r·y_step + l] += Σₖ x[x_at + r·x_step + k·x_next] · w[w_at + k·w_step + l]

    for r < `rows`, k < count and l < `vectors`·LANES. The two steps of x turn it where it stands: a
    product with xᵀ takes the same function.
    """

    @instructions
    def kernel(
        typing: Any,
        y: Any, y_at: Any, y_step: Any,
        x: Any, x_at: Any, x_step: Any, x_next: Any,
        w: Any, w_at: Any, w_step: Any,
        count: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(y, y_at, y_step, x, x_at, x_step, x_next, w, w_at, w_step, count)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, y.dtype)
            kinds, values = signature.args, arguments
            y_data, x_data, w_data = (emit.data(kinds[i], values[i]) for i in (0, 3, 7))
            y_first, y_stride, x_first, x_down, x_along, w_first, w_stride, number = (
                emit.index(kinds[i], values[i]) for i in (1, 2, 4, 5, 6, 8, 9, 10)
            )
            y_rows = emit.rows(y_data, y_first, y_stride, rows)
            x_rows = emit.rows(x_data, x_first, x_down, rows)
            w_base = builder.gep(w_data, [w_first])
            lanes = [emit.constant(vector * LANES) for vector in range(vectors)]
            sums = [[emit.register() for _ in lanes] for _ in range(rows)]
            for y_row, totals in zip(y_rows, sums, strict=True):
                for lane, total in zip(lanes, totals, strict=True):
                    builder.store(emit.load(y_row, lane), total)
            with cgutils.for_range(builder, number, intp=_INDEX) as loop:
                w_row = builder.mul(loop.index, w_stride)
                weights = [emit.load(w_base, builder.add(w_row, lane)) for lane in lanes]
                at = builder.mul(loop.index, x_along)
                for x_row, totals in zip(x_rows, sums, strict=True):
                    emit.add_multiples(emit.load_spread(x_row, at), weights, totals)
            for y_row, totals in zip(y_rows, sums, strict=True):
                for lane, total in zip(lanes, totals, strict=True):
                    emit.store(builder.load(total), y_row, lane)
            return context.get_dummy_value()

        return signature, generate

    return kernel


def dot_products(rows: int, columns: int) -> Callable[..., None]:
    """Make the function that multiplies some rows of one matrix by some rows of another.

    y[y_at + r·y_step + c] = Σₖ x[x_at + r·x_step + k] · w[w_at + c·w_step + k]

    for r < `rows`, c < `columns` and k < `vectors`·LANES.
    """

    @instructions
    def kernel(
        typing: Any,
        y: Any, y_at: Any, y_step: Any,
        x: Any, x_at: Any, x_step: Any,
        w: Any, w_at: Any, w_step: Any,
        vectors: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(y, y_at, y_step, x, x_at, x_step, w, w_at, w_step, vectors)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, y.dtype)
            kinds, values = signature.args, arguments
            y_data, x_data, w_data = (emit.data(kinds[i], values[i]) for i in (0, 3, 6))
            y_first, y_stride, x_first, x_stride, w_first, w_stride, number = (
                emit.index(kinds[i], values[i]) for i in (1, 2, 4, 5, 7, 8, 9)
            )

            x_rows = emit.rows(x_data, x_first, x_stride, rows)
            w_rows = emit.rows(w_data, w_first, w_stride, columns)
            y_rows = emit.rows(y_data, y_first, y_stride, rows)
            nothing = ir.Constant(emit.vector, [0.0] * LANES)
            totals = [[emit.register() for _ in range(columns)] for _ in range(rows)]
            for registers in totals:
                for total in registers:
                    builder.store(nothing, total)
            with cgutils.for_range(builder, number, intp=_INDEX) as loop:
                at = builder.mul(loop.index, emit.constant(LANES))
                factors = [emit.load(row, at) for row in x_rows]
                for column, w_row in enumerate(w_rows):
                    column_sums = [registers[column] for registers in totals]
                    emit.add_multiples(emit.load(w_row, at), factors, column_sums)
            for y_row, registers in zip(y_rows, totals, strict=True):
                for column, total in enumerate(registers):
                    value = emit.sum_of_lanes(builder.load(total))
                    builder.store(value, builder.gep(y_row, [emit.constant(column)]))
            return context.get_dummy_value()

        return signature, generate

    return kernel


def sum_of_rows(vectors: int) -> Callable[..., None]:
    """Make the function that adds up the rows of a table that a sparse vector names.

    y[y_at + l] += Σₖ values[k] · table[table_at + columns[k]·width + l]

    for first ≤ k < last and l < `vectors`·LANES. An addition has to wait for the one before it on
    the same sum, some five cycles; where there is room for them, several rows have sums of their
    own, which are added up at the end.
    """
    together = max(1, min(4, MOST_SUMS // vectors))

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
            lanes = [emit.constant(number * LANES) for number in range(vectors)]
            y_base = builder.gep(y_data, [place])
            table_base = builder.gep(table_data, [table_first])
            sums = [[emit.register() for _ in lanes] for _ in range(together)]
            for lane, total in zip(lanes, sums[0], strict=True):
                builder.store(emit.load(y_base, lane), total)
            for more in sums[1:]:
                for total in more:
                    builder.store(emit.constants(0.0), total)

            def add_row(at: Any, totals: list[Any]) -> None:
                row = builder.mul(emit.load_index(column_data, at), stride)
                parts = [emit.load(table_base, builder.add(row, lane)) for lane in lanes]
                emit.add_multiples(emit.load_spread(value_data, at), parts, totals)

            count = builder.sub(end, begin)
            rounds = builder.udiv(count, emit.constant(together))
            with cgutils.for_range(builder, rounds, intp=_INDEX) as loop:
                at = builder.add(begin, builder.mul(loop.index, emit.constant(together)))
                for number, totals in enumerate(sums):
                    add_row(builder.add(at, emit.constant(number)), totals)
            done = builder.mul(rounds, emit.constant(together))
            with cgutils.for_range(builder, builder.sub(count, done), intp=_INDEX) as loop:
                add_row(builder.add(builder.add(begin, done), loop.index), sums[0])
            for lane, *totals in zip(lanes, *sums, strict=True):
                value = builder.load(totals[0])
                for total in totals[1:]:
                    value = builder.fadd(value, builder.load(total))
                emit.store(value, y_base, lane)
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


def add_multiple(vectors: int) -> Callable[..., None]:
    """Make the function that adds a multiple of one run of numbers to another.

    y[y_at + l] += scale · x[x_at + l], for l < `vectors`·LANES.
    """

    @instructions
    def kernel(typing: Any, y: Any, y_at: Any, x: Any, x_at: Any, scale: Any) -> Any:
        signature = types.void(y, y_at, x, x_at, scale)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, y.dtype)
            kinds = signature.args
            y_data, x_data = (emit.data(kinds[i], arguments[i]) for i in (0, 2))
            y_first, x_first = (emit.index(kinds[i], arguments[i]) for i in (1, 3))
            factor = emit.spread(context.cast(builder, arguments[4], kinds[4], y.dtype))
            for vector in range(vectors):
                lane = emit.constant(vector * LANES)
                target = builder.add(y_first, lane)
                part = emit.load(x_data, builder.add(x_first, lane))
                total = emit.multiply_add(factor, part, emit.load(y_data, target))
                emit.store(total, y_data, target)
            return context.get_dummy_value()

        return signature, generate

    return kernel


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
        emit.pool(values, y_data, mask_data, place, arguments[7])
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
        for corner, value in zip(corners, emit.unpool(dy_data, mask_data, place), strict=True):
            emit.store(value, dx_data, corner)
        return context.get_dummy_value()

    return signature, generate


def pooled_convolution(side: int) -> Callable[..., None]:
    """Make the function that convolves one channel, and pools a window of 2×2, in registers.

    It computes the four outputs at the window's corners in `LANES` channels, from side + 1 rows of
    x that begin at x_at and lie `row` apart, with filters of side × side taps; then it does as
    `maximum_of_four`.
    """

    @instructions
    def kernel(
        typing: Any,
        y: Any, mask: Any, at: Any,
        start: Any,
        x: Any, x_at: Any, row: Any,
        w: Any, w_at: Any,
        all_ties: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(y, mask, at, start, x, x_at, row, w, w_at, all_ties)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, y.dtype)
            kinds, values = signature.args, arguments
            y_data, mask_data, start_data, x_data, w_data = (
                emit.data(kinds[i], values[i]) for i in (0, 1, 3, 4, 7)
            )
            place, x_first, step, w_first = (emit.index(kinds[i], values[i]) for i in (2, 5, 6, 8))
            w_base = builder.gep(w_data, [w_first])
            weights = {
                (i, j): emit.load(w_base, emit.constant((i * side + j) * LANES))
                for i in range(side)
                for j in range(side)
            }
            sums = dict.fromkeys(_CORNERS, emit.load(start_data, emit.constant(0)))
            x_rows = emit.rows(x_data, x_first, step, side + 1)
            for i, x_row in enumerate(x_rows):
                for j in range(side + 1):
                    factor = emit.load_spread(x_row, emit.constant(j))
                    for down, right in _CORNERS:
                        weight = weights.get((i - down, j - right))
                        if weight is not None:
                            total = sums[down, right]
                            sums[down, right] = emit.multiply_add(factor, weight, total)
            emit.pool([sums[corner] for corner in _CORNERS], y_data, mask_data, place, values[9])
            return context.get_dummy_value()

        return signature, generate

    return kernel


def pooled_tap_products(side: int) -> Callable[..., None]:
    """Make the function that adds up the gradient of filters of one channel along pooled outputs.

    The reverse of `pooled_convolution` for a row of `count` windows, whose gradients and masks lie
    `step` apart from `at` on; the filters' gradient begins at y_at.
    """

    @instructions
    def kernel(
        typing: Any,
        y: Any, y_at: Any,
        x: Any, x_at: Any, row: Any,
        dy: Any, mask: Any, at: Any, step: Any,
        count: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(y, y_at, x, x_at, row, dy, mask, at, step, count)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, y.dtype)
            kinds, values = signature.args, arguments
            y_data, x_data, dy_data, mask_data = (
                emit.data(kinds[i], values[i]) for i in (0, 2, 5, 6)
            )
            y_first, x_first, x_step, first, stride, number = (
                emit.index(kinds[i], values[i]) for i in (1, 3, 4, 7, 8, 9)
            )
            y_base = builder.gep(y_data, [y_first])
            taps = [(i, j) for i in range(side) for j in range(side)]
            sums = {tap: emit.register() for tap in taps}
            places = {(i, j): emit.constant((i * side + j) * LANES) for i, j in taps}
            for tap in taps:
                builder.store(emit.load(y_base, places[tap]), sums[tap])
            x_rows = emit.rows(x_data, x_first, x_step, side + 1)
            with cgutils.for_range(builder, number, intp=_INDEX) as loop:
                place = builder.add(first, builder.mul(loop.index, stride))
                gradients = dict(zip(_CORNERS, emit.unpool(dy_data, mask_data, place), strict=True))
                column = builder.mul(loop.index, emit.constant(2))
                for i, x_row in enumerate(x_rows):
                    for j in range(side + 1):
                        factor = emit.load_spread(x_row, builder.add(column, emit.constant(j)))
                        for (down, right), gradient in gradients.items():
                            total = sums.get((i - down, j - right))
                            if total is not None:
                                emit.add_multiples(factor, [gradient], [total])
            for tap in taps:
                emit.store(builder.load(sums[tap]), y_base, places[tap])
            return context.get_dummy_value()

        return signature, generate

    return kernel


@instructions
def fetch_ahead(typing: Any, array: Any, first: Any, last: Any) -> Any:
    """Begin to fetch numbers `first` to `last` − 1 of an array that will soon be read."""
    signature = types.void(array, first, last)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder, array.dtype)
        begin, end = (
            builder.gep(
                emit.data(array, arguments[0]), [emit.index(signature.args[i], arguments[i])]
            )
            for i in (1, 2)
        )
        byte = ir.IntType(8).as_pointer()
        flag = ir.IntType(32)
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module,
            ir.FunctionType(ir.VoidType(), (byte, flag, flag, flag)),
            "llvm.prefetch.p0i8",
        )
        first_byte = builder.ptrtoint(begin, _INDEX)
        length = builder.sub(builder.ptrtoint(end, _INDEX), first_byte)
        lines = builder.udiv(
            builder.add(length, emit.constant(CACHE_LINE - 1)), emit.constant(CACHE_LINE)
        )
        with cgutils.for_range(builder, lines, intp=_INDEX) as loop:
            at = builder.add(first_byte, builder.mul(loop.index, emit.constant(CACHE_LINE)))
            pointer = builder.inttoptr(at, byte)
            builder.call(function, (pointer, *(ir.Constant(flag, value) for value in (0, 3, 1))))
        return context.get_dummy_value()

    return signature, generate


def _replaced_by(function: Callable[[_Emitter, Any], Any]) -> Callable[..., None]:
    """Make the function that replaces the numbers of an array of whole vectors by their images."""

    @instructions
    def kernel(typing: Any, y: Any) -> Any:
        signature = types.void(y)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Emitter(context, builder, y.dtype)
            array = context.make_array(y)(context, builder, arguments[0])
            vectors = builder.udiv(array.nitems, emit.constant(LANES))
            with cgutils.for_range(builder, vectors, intp=_INDEX) as loop:
                at = builder.mul(loop.index, emit.constant(LANES))
                emit.store(function(emit, emit.load(array.data, at)), array.data, at)
            return context.get_dummy_value()

        return signature, generate

    return kernel


exponentials = _replaced_by(_Emitter.exponential)  # of numbers that are at most 0
sigmoids = _replaced_by(_Emitter.sigmoid)
rectify = _replaced_by(_Emitter.rectified)
