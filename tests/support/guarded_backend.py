"""A backend that fails outside of `computation`, like a backend that selects its device there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from backends.numpy.backend import NumpyBackend


class GuardedBackend(NumpyBackend):
    """NumPy; if `guarded`, `asarray` and `linear` fail outside of `computation`."""

    guarded = False
    computing = False

    @contextmanager
    def computation(self, kinds: frozenset[str]) -> Iterator[None]:
        with super().computation(kinds):
            self.computing = True
            try:
                yield
            finally:
                self.computing = False

    def asarray(self, host: NDArray[Any], *, dtype: str | None = None) -> NDArray[Any]:
        assert self.computing or not self.guarded
        return super().asarray(host, dtype=dtype)

    def linear(
        self, x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None
    ) -> NDArray[Any]:
        assert self.computing or not self.guarded
        result: NDArray[Any] = super().linear(x, weight, bias)
        return result
