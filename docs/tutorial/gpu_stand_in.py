"""A stand-in for CuPy on machines without a GPU: NumPy arrays that behave like arrays on a GPU.

It computes with NumPy, so its times mean nothing. But as with CuPy, functions and operators refuse
to mix its arrays with host arrays. And it counts what costs time on a GPU:

- launches of kernels: one per operator or function; a view needs none,
- copies between host and GPU, and the waits of the host for the GPU that they cause,
- the bytes of new arrays.

It is a model. CuPy launches more than one kernel for some functions, and fuses none.
"""

from dataclasses import dataclass, fields
from types import EllipsisType

import array_api_compat.numpy
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


@dataclass
class Counts:
    """What a program has done on the GPU."""

    launches: int = 0
    copies: int = 0
    waits: int = 0
    new_bytes: int = 0

    def __str__(self):
        names = (field.name for field in fields(self))
        return ", ".join(f"{name.replace('_', ' ')} {getattr(self, name):,}" for name in names)


class StandIn:
    """Replaces the module `cupy`. Its functions are those of the array API standard."""

    def __init__(self):
        self.counts = Counts()

    def asarray(self, values, dtype=None, copy=None):
        """Copy a host array to the GPU, or return an array on the GPU or a copy of it."""
        if isinstance(values, DeviceArray):
            return self.launch(np.asarray, values, dtype=dtype, copy=copy)
        self.counts.copies += 1
        return self._new(np.array(values, dtype=dtype))

    def asnumpy(self, array):
        """Copy an array to the host, after waiting for its computation."""
        self.counts.copies += 1
        self.counts.waits += 1
        return array.values.copy()

    def __getattr__(self, name):
        """Return a function or a dtype of the standard."""
        found = getattr(array_api_compat.numpy, name)
        if isinstance(found, type) or not callable(found):
            return found
        return lambda *args, **options: self.launch(found, *args, **options)

    def launch(self, function, *args, **options):
        """Return the result of a NumPy function of arrays on the GPU."""
        options.pop("device", None)
        values, options = self._values(args), self._values(options)
        result = function(*values, **options)
        if not isinstance(result, np.ndarray | np.generic):
            return result  # such as a dtype
        inputs = [value for value in _flat(values) if isinstance(value, np.ndarray)]
        if any(np.may_share_memory(result, value) for value in inputs):
            return DeviceArray(self, result)  # a view
        self.counts.launches += 1
        return self._new(result)

    def _new(self, values):
        self.counts.new_bytes += values.nbytes
        return DeviceArray(self, np.asarray(values))

    def _values(self, argument):
        """Return an argument with the NumPy arrays in place of arrays on the GPU."""
        if isinstance(argument, DeviceArray):
            return argument.values
        if isinstance(argument, np.ndarray):
            raise TypeError(f"Unsupported type {type(argument)}")  # as CuPy says
        if isinstance(argument, tuple | list):
            return type(argument)(self._values(item) for item in argument)
        if isinstance(argument, dict):
            return {key: self._values(item) for key, item in argument.items()}
        return argument


class DeviceArray(NDArrayOperatorsMixin):
    """An array on the GPU."""

    device = "GPU 0"

    def __init__(self, gpu, values):
        self.gpu = gpu
        self.values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    @property
    def T(self):  # noqa: N802 - NumPy's name
        """The transposed matrix, a view."""
        return DeviceArray(self.gpu, self.values.T)

    def __len__(self):
        return len(self.values)

    def __array_namespace__(self, api_version=None):
        return self.gpu

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        """Compute operators, and functions such as `np.exp`."""
        result = self.gpu.launch(getattr(ufunc, method), *inputs, **options)
        if out is None:
            return result
        out[0].values[...] = result.values
        return out[0]

    def __array_function__(self, function, types, args, options):
        """Compute functions such as `np.mean`."""
        return self.gpu.launch(function, *args, **options)

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."  # as CuPy says
        )

    def __getitem__(self, key):
        if _has_mask(key):
            self.gpu.counts.waits += 1  # the host needs the number of elements
        return self.gpu.launch(np.ndarray.__getitem__, self, key)

    def __setitem__(self, key, value):
        self.gpu.counts.launches += 1
        self.values[self.gpu._values(key)] = self.gpu._values(value)

    def _scalar(self, convert):
        return convert(self.gpu.asnumpy(self))

    def __float__(self):
        return self._scalar(float)

    def __int__(self):
        return self._scalar(int)

    def __bool__(self):
        return self._scalar(bool)

    def get(self):
        """Copy the array to the host."""
        return self.gpu.asnumpy(self)


def _has_mask(key):
    parts = key if isinstance(key, tuple) else (key,)
    simple = (int, slice, EllipsisType, type(None))
    return any(not isinstance(part, simple) and part.dtype == bool for part in parts)


def _flat(values):
    for value in values:
        if isinstance(value, tuple | list):
            yield from _flat(value)
        else:
            yield value
