"""Finding a backend by name, and choosing one when the user leaves it open.

Besides the built-in ones, any installed distribution can offer a backend under the entry-point
group `mnist_accel.backends`: the entry point's name is the backend's, its object the `Backend`
subclass.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points

from backends.availability import Availability, BackendUnavailableError
from backends.base import Backend
from backends.names import unknown_name

ENTRY_POINT_GROUP = "mnist_accel.backends"

# Best first: this is the order in which "auto" tries them.
_BUILT_IN = {
    "cupy": "backends.cupy.backend:CupyBackend",
    "numba": "backends.numba.backend:NumbaBackend",
    "numpy": "backends.numpy.backend:NumpyBackend",
}
_registered: dict[str, type[Backend]] = {}


@dataclass(frozen=True)
class Selection:
    """A backend, and why it is this one.

    Attributes:
        requested: the name that was asked for, or "auto".
        backend: the backend to use.
        reason: why, in words for the user.
        fell_back: True where `backend` is not the one that was asked for.
        passed_over: what speaks against better ones, where "auto" was asked for.
    """

    requested: str
    backend: Backend
    reason: str
    fell_back: bool
    passed_over: tuple[str, ...] = ()


def register(backend_class: type[Backend]) -> None:
    """Offer a backend under its `name` in this process.

    Raises:
        TypeError: it is no subclass of `Backend`, or leaves some of its methods abstract.
        ValueError: another backend, built-in or registered, has this name.
    """
    name = _checked(backend_class).name
    if name in _BUILT_IN:
        raise ValueError(f"backend name {name!r} is taken by a built-in backend")
    if _registered.setdefault(name, backend_class) is not backend_class:
        taken_by = f"{_registered[name].__module__}.{_registered[name].__qualname__}"
        raise ValueError(f"backend name {name!r} is taken by {taken_by}")


def available_backends() -> dict[str, Availability]:
    """Return, for every known backend, whether it can run here and if not why.

    The built-in backends come first, then registered and installed ones. A broken plug-in
    is listed with its error as the reason.
    """
    return {name: _availability(load) for name, load in _loaders().items()}


def get_backend(
    name: str = "auto", *, threads: int | None = None, device: int | None = None
) -> Backend:
    """Return the backend called `name`, or the best that can run here for "auto".

    Args:
        name: a backend's name, or "auto".
        threads: see `select_backend`.
        device: see `select_backend`.

    Raises:
        ValueError: no backend has this name, or `threads` or `device` is wrong.
        BackendUnavailableError: it cannot run here; the error says why and what to do.
    """
    return select_backend(name, fallback=False, threads=threads, device=device).backend


def select_backend(
    name: str, *, fallback: bool, threads: int | None = None, device: int | None = None
) -> Selection:
    """Return the backend called `name` with the reason for the choice.

    Args:
        name: a backend's name, or "auto" for the best that can run here.
        fallback: where the backend cannot run, return the best one on the CPU instead of raising.
        threads: the most threads of the CPU that it computes with; None for its own rule. Makes no
            difference where "auto" comes to a backend that computes elsewhere.
        device: which of several devices it computes on; None for the library's own choice. "auto"
            stands for backends that have devices then. Makes no difference to a backend that takes
            the place of another.

    Raises:
        ValueError: no backend has this name; `threads` is below 1 or not for the user to choose; or
            there is no such device.
        BackendUnavailableError: it cannot run here, and `fallback` is False.
    """
    return next(_selections(name, fallback=fallback, threads=threads, device=device))


def select_backends(
    name: str, *, fallback: bool, threads: int | None = None, device: int | None = None
) -> list[Selection]:
    """Return all backends that `name` may stand for here, which are several for "auto" alone.

    Arguments and errors are those of `select_backend`, which returns the first of them.
    """
    return list(_selections(name, fallback=fallback, threads=threads, device=device))


def _selections(
    name: str, *, fallback: bool, threads: int | None, device: int | None
) -> Iterator[Selection]:
    """Yield what may be selected, the best first."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    candidates = _candidates(name, fallback=fallback)
    if device is not None and name == "auto":
        candidates = _with_devices(candidates, device)
    for selection in candidates:
        backend = selection.backend
        if device is not None and not selection.fell_back:
            backend.take_device(device)
            selection = replace(selection, reason=backend.device_info().name)
        if backend.most_threads is not None:
            backend.threads = threads
        elif threads is not None and name != "auto":
            raise ValueError(
                f"backend {name!r} does not take a number of threads, got {threads}; leave it out"
            )
        yield selection


def _with_devices(selections: Iterator[Selection], device: int) -> Iterator[Selection]:
    """Yield the selections whose backends have devices to choose from.

    Raises:
        ValueError: there are none.
    """
    found = False
    passed_over: tuple[str, ...] = ()
    for selection in selections:
        if selection.backend.device_count is None:
            passed_over = selection.passed_over
            continue
        found = True
        yield selection
    if not found:
        reasons = "; ".join(passed_over)
        raise ValueError(
            f"no backend that can run here takes a device, got {device} ({reasons}); leave it out"
        )


def _candidates(name: str, *, fallback: bool) -> Iterator[Selection]:
    """Yield what may be selected, on the device and with the threads that it likes."""
    loaders = _loaders()
    if name == "auto":
        yield from _runnable(list(_BUILT_IN))
        return
    if name not in loaders:
        raise ValueError(unknown_name("backend", name, ("auto", *loaders)))
    load = loaders[name]
    availability = _availability(load)
    if availability.ok:
        yield Selection(name, load()(), availability.reason, fell_back=False)
        return
    if not fallback:
        raise BackendUnavailableError(name, availability)
    best = next(_runnable([other for other in ("numba", "numpy") if other != name]))
    reason = f"{name} cannot run here: {availability.reason}; {availability.remedy}"
    yield Selection(name, best.backend, reason, fell_back=True)


def _runnable(names: list[str]) -> Iterator[Selection]:
    """Yield those of `names` that can run here, with what speaks against those before them.

    Raises:
        BackendUnavailableError: none of them can.
    """
    passed_over: list[str] = []
    for name in names:
        load = partial(_load_class, _BUILT_IN[name])
        availability = _availability(load)
        if availability.ok:
            reason = "; ".join([availability.reason, *passed_over])
            yield Selection(
                "auto", load()(), reason, fell_back=False, passed_over=tuple(passed_over)
            )
        else:
            passed_over.append(f"not {name}: {availability.reason}")
    if len(passed_over) == len(names):
        raise BackendUnavailableError(
            "auto", Availability(False, "; ".join(passed_over), "see above")
        )


def _loaders() -> dict[str, Callable[[], type[Backend]]]:
    """Return, for every known backend, a function that imports its class."""
    loaders: dict[str, Callable[[], type[Backend]]] = {}
    for name, path in _BUILT_IN.items():
        loaders[name] = partial(_load_class, path)
    for name, backend_class in _registered.items():
        loaders[name] = partial(_itself, backend_class)
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        loaders.setdefault(entry_point.name, partial(_load_plug_in, entry_point))
    return loaders


def _availability(load: Callable[[], type[Backend]]) -> Availability:
    """Return what a backend says of itself, or the error that kept it from doing so."""
    try:
        return load().availability()
    except Exception as error:  # the import of a plug-in may raise anything
        message = " ".join(str(error).split())
        return Availability(
            ok=False,
            reason=f"it is broken ({type(error).__name__}: {message})",
            remedy="reinstall or remove the distribution that provides it",
        )


def _load_class(path: str) -> type[Backend]:
    """Import "module:Class"."""
    module, _, attribute = path.partition(":")
    backend_class: type[Backend] = getattr(importlib.import_module(module), attribute)
    return backend_class


def _load_plug_in(entry_point: EntryPoint) -> type[Backend]:
    return _checked(entry_point.load())


def _checked(candidate: object) -> type[Backend]:
    """Return a class that others wrote, if it can be a backend.

    Raises:
        TypeError: it cannot.
    """
    if not (isinstance(candidate, type) and issubclass(candidate, Backend)):
        raise TypeError(
            f"a backend must be a subclass of backends.Backend, got {candidate!r}; derive it from "
            "that, or from a backend that there is"
        )
    missing = sorted(candidate.__abstractmethods__)
    if missing:
        raise TypeError(
            f"backend {candidate.__qualname__} lacks methods that every backend must have; write "
            f"{', '.join(missing)}"
        )
    return candidate


def _itself(backend_class: type[Backend]) -> type[Backend]:
    return backend_class
