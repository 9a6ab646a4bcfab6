"""Kernels declare their parameters in CUDA; arguments are checked and converted by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.cupy.kernel import Kernel
from backends.cupy.loader import source, with_includes
from backends.cupy.signature import (
    ArgumentError,
    enumerators,
    kernel_names,
    parameters,
    struct_members,
)
from tests.support.cuda_emulator.build import kernels_in

FOLDER = Path(__file__).parents[2] / "backends" / "cupy" / "kernels"
CODE = """
enum Color { RED, GREEN };  // a comment with a comma, and (parentheses)

struct Point {
  int row, column;
  real weight;  // not an int
  __device__ int sum() const { return row + column; }
};

struct Line {
  Point points[MAX_POINTS];
  const real* data;
  Color color;
};

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    draw(const __grid_constant__ Line line, const PIXEL* __restrict__ x, int64 count, real scale,
         unsigned* counter) {}
"""
OPTIONS = {"REAL": "float", "PIXEL": "uint8", "MAX_POINTS": 3}


class Launches:
    """Stands in for a kernel of CuPy; keeps the arguments of the last launch."""

    def __init__(self) -> None:
        self.last: tuple[Any, ...] | None = None

    def __call__(self, *arguments: Any) -> None:
        self.last = arguments


class DeviceArray(np.ndarray[Any, Any]):
    @property
    def data(self) -> Any:
        return type("Memory", (), {"ptr": 640})


@dataclass(frozen=True)
class Point:
    row: int
    column: int
    weight: float


@pytest.fixture
def launches() -> Launches:
    return Launches()


@pytest.fixture
def draw(launches: Launches) -> Kernel:
    return Kernel("draw", launches, parameters(CODE, "draw", OPTIONS))


def arguments(**changes: Any) -> dict[str, Any]:
    """Return valid arguments of `draw` with some changes."""
    data = np.zeros(4, np.float32).view(DeviceArray)
    line = {"points": [Point(1, 2, 0.5)], "data": data, "color": "green"}
    return {
        "line": line,
        "x": np.zeros(2, np.uint8),
        "count": 7,
        "scale": 0.5,
        "counter": np.zeros(1, np.uint32),
        **changes,
    }


def test_arguments_have_the_declared_order_and_types(draw: Kernel, launches: Launches) -> None:
    draw((2, 3), 64, **dict(reversed(arguments().items())))
    assert launches.last is not None
    grid, block, values = launches.last
    assert (grid, block) == ((2, 3, 1), (64,))
    line, x, count, scale, counter = values
    assert (count, scale) == (7, 0.5)
    assert (count.dtype, scale.dtype, x.dtype, counter.dtype) == ("int64", "f4", "u1", "u4")
    assert line["points"][0].tolist() == (1, 2, 0.5)
    assert line["points"][1:].tolist() == [(0, 0, 0)] * 2  # points that are not given
    assert (line["data"], line["color"]) == (640, 1)
    assert line.nbytes == 56  # three points of 12 bytes, a gap, a pointer, an int and a gap


def test_members_are_the_last_dimension_of_the_grid(draw: Kernel, launches: Launches) -> None:
    draw((2,), 64, members=7, **arguments())
    assert launches.last is not None
    assert launches.last[0] == (2, 1, 7)


def test_none_is_a_null_pointer(draw: Kernel, launches: Launches) -> None:
    draw((1,), 32, **arguments(x=None))
    assert launches.last is not None
    assert launches.last[2][1] == 0


def test_empty_grid_launches_nothing(draw: Kernel, launches: Launches) -> None:
    draw((3, 0), 32, **arguments())
    assert launches.last is None


LINE = arguments()["line"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros(2)}, ", x: expected an array of uint8, got float64"),
        ({"x": 3}, ", x: expected an array of uint8, got int"),
        ({"x": np.zeros(4, np.uint8)[::2]}, ", x: expected an array in C order"),
        ({"count": 0.5}, ", count: expected a number of type int64, got 0.5"),
        ({"count": 1 << 63}, ", count: 9223372036854775808 does not fit int64"),
        ({"scale": "half"}, ", scale: expected a number of type float32, got 'half'"),
        ({"extra": 1}, "takes line, x, count, scale, counter; got line, .*extra"),
        ({"line": 5}, ", line: expected the members points, data, color of Line, got 5"),
        (
            {"line": {**LINE, "color": "blue"}},
            "struct Line, color: expected one of red, green, got 'blue'",
        ),
        ({"line": {**LINE, "points": [Point(1, 2, 3)] * 4}}, "at most 3 elements, got 4"),
        (
            {"line": {**LINE, "data": np.zeros(4).view(DeviceArray)}},
            "struct Line, data: .*got float64",
        ),
    ],
)
def test_wrong_arguments_name_kernel_and_parameter(
    draw: Kernel, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=f"kernel draw.*{message}"):
        draw((1,), 32, **arguments(**changes))


def test_unreadable_declarations_are_refused() -> None:
    for declaration, message in (
        ("Shape s", "unknown type Shape"),
        ("Line* p", "pointer to Line"),
        ("int", "cannot read the declaration 'int'"),
    ):
        code = f'{CODE}extern "C" __global__ void f({declaration}) {{}}'
        with pytest.raises(ValueError, match=message):
            parameters(code, "f", OPTIONS)


def test_names_of_kernels_enumerators_and_members_are_read() -> None:
    assert kernel_names(CODE) == ["draw"]
    assert enumerators(CODE, "Color") == ("red", "green")
    assert struct_members(CODE, "Point") == ("row", "column", "weight")


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.cu")), ids=lambda path: path.stem)
def test_signatures_of_all_kernels_are_read(file: Path) -> None:
    code = source(str(file.relative_to(FOLDER).with_suffix("")))
    names = kernel_names(code)
    assert names == kernels_in(code)
    options = dict.fromkeys(("PIXEL", "INPUT", "MASK", "TARGET"), "uint8")
    for name in names:
        assert parameters(code, name, {**options, "REAL": "float", "MAX_LAYERS": 2, "ROUNDS": 6})


def test_each_header_is_included_once() -> None:
    code = with_includes('#include "rows.cuh"\n#include "common.cuh"\nint last;\n', "f.cu")
    assert code.count("struct Batch {") == 1
    assert '#line 2 "f.cu"\n\nint last;' in code
    assert "#pragma once" not in code


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.cuh")), ids=lambda path: path.stem)
def test_headers_have_include_guards(file: Path) -> None:
    assert file.read_text(encoding="utf-8").count("\n#pragma once\n") == 1
