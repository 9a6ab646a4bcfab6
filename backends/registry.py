"""Find a backend by name, or choose one for "auto".

A backend comes from one of three places:

- a folder of this package (`cupy`, `numba`, `numpy`, `torch`) with `probe.py` and `backend.py`. The
  probe runs first and imports its library lazily; `backend.py` imports the library and its kernels
  at the top, so it is imported only after the probe succeeded. This file is the only one that
  imports backends by name.
- a class that `register` added in this process.
- an installed distribution with an entry point in the group `mnist_accel.backends`: the name of the
  entry point is the name of the backend, its object the `Backend` subclass.
"""

import copyreg
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from backends.availability import Availability, BackendUnavailableError
from backends.base import Backend
from backends.checks import as_integer, require_type
from backends.names import Aliases, Table, resolve_name, shown, spelling

ENTRY_POINT_GROUP = "mnist_accel.backends"


@dataclass(frozen=True)
class _Source:
    """Where a backend comes from. Both functions may raise any error if its code is broken.

    Attributes:
        load: imports and returns the class.
        availability: returns whether the backend can run here.
    """

    load: Callable[[], type[Backend]]
    availability: Callable[[], Availability]


def _built_in(name: str, class_name: str) -> _Source:
    """Return the source of a folder of this package, whose probe imports no library at the top."""
    return _Source(
        load=lambda: getattr(importlib.import_module(f"backends.{name}.backend"), class_name),
        availability=lambda: importlib.import_module(f"backends.{name}.probe").availability(),
    )


def _from_class(backend_class: type[Backend]) -> _Source:
    """Return the source of a class that `register` added."""
    return _Source(lambda: backend_class, backend_class.availability)


def _plug_in(load: Callable[[], object]) -> _Source:
    """Return the source of an entry point, whose `load` imports an installed distribution."""
    return _Source(lambda: _checked(load()), lambda: _checked(load()).availability())


_BUILT_IN: dict[str, _Source] = {
    "cupy": _built_in("cupy", "CupyBackend"),
    "numba": _built_in("numba", "NumbaBackend"),
    "numpy": _built_in("numpy", "NumpyBackend"),
    "torch": _built_in("torch", "TorchBackend"),
}
# The backends that "auto" chooses from, in order of preference. ADR 0030 says why not "torch".
_AUTO = ("cupy", "numba", "numpy")
_registered: Table[type[Backend]] = Table("backend", {})
_ALIASES: Aliases = {
    "cuda": ("cupy",),
    "gpu": ("cupy",),
    "cpu": ("numba", "numpy"),
    "pytorch": ("torch",),
}
_DEVICE = re.compile(r"(?:(cuda|gpu|xpu):)?(\d{1,4})", re.IGNORECASE)


@dataclass(frozen=True)
class Selection:
    """A backend and the reason for choosing it.

    Attributes:
        requested: the requested name, or "auto".
        backend: the chosen backend.
        reason: the reason, in words for the user.
        fell_back: True if `backend` is not the requested one.
        passed_over: for "auto", why each better backend cannot run.
    """

    requested: str
    backend: Backend
    reason: str
    fell_back: bool
    passed_over: tuple[str, ...] = ()


def register(backend_class: type[Backend]) -> None:
    """Add a backend under its `name` in this process.

    Raises:
        TypeError: the class is not a subclass of `Backend`, or some of its methods are abstract.
        ValueError: a built-in or registered backend already has this name, in any spelling.
    """
    name = _checked(backend_class).name
    if spelling(name) in ("auto", *_BUILT_IN):
        raise ValueError(f"backend name {name!r} is taken by a built-in backend")
    _registered[name] = backend_class


def available_backends() -> dict[str, Availability]:
    """Return the availability of every known backend, by name.

    Built-in backends come first, then registered and installed ones. A plug-in that raises an
    error is listed as unavailable with the error as the reason.
    """
    return {name: _availability(source) for name, source in _sources().items()}


def backend_availability(name: str) -> Availability:
    """Return whether one backend can run here. The libraries of the others are not imported.

    Raises:
        TypeError: the name is not a string.
        ValueError: the name is unknown, or "auto".
    """
    known = backend_name(name)
    if known == "auto":
        raise ValueError("auto is no backend but a choice; call get_backend")
    return _availability(_source(known))


def backend_name(name: str) -> str:
    """Return the name of a backend, or "auto", that `name` means: "cuda" means "cupy".

    Raises:
        TypeError: the name is not a string.
        ValueError: the name is unknown.
    """
    given: object = name
    if isinstance(given, str) and given in _BUILT_IN:  # the search for plug-ins takes milliseconds
        return given
    return resolve_name("backend", name, backend_names(), _ALIASES)


def backend_names() -> tuple[str, ...]:
    """Return "auto" and the names of all known backends, including those that cannot run here."""
    return "auto", *_sources()


def device_name(device: int | str) -> str:
    """Return the name of a device, "cpu", "cuda:N", "mps" or "xpu:N", that a user wrote.

    A number N means "cuda:N". Without a number, "cuda" and "xpu" mean the first device.

    Raises:
        TypeError: it is neither a text nor a number.
        ValueError: the text has another form.
    """
    require_type("device", device, int | str, "a name such as 'cuda:0', or its number")
    text = str(device).lower()
    if text in ("cpu", "mps"):
        return text
    match = _DEVICE.fullmatch(f"{text}:0" if text in ("cuda", "gpu", "xpu") else text)
    if match is None:
        raise ValueError(f"expected a device cpu, cuda:N, mps or xpu:N, got {shown(device)}")
    return f"{'xpu' if match[1] == 'xpu' else 'cuda'}:{int(match[2])}"


def get_backend(
    name: str = "auto", *, threads: int | None = None, device: int | str | None = None
) -> Backend:
    """Return the backend called `name`, or for "auto" the best one that can run here.

    Args:
        name: name of a backend, or "auto"; see `backend_name`.
        threads: see `select_backend`.
        device: see `select_backend`.

    Raises:
        ValueError: the name is unknown, or `threads` or `device` is invalid.
        BackendUnavailableError: the backend cannot run on the device or at all here; the error has
            reason and remedy.
    """
    return select_backend(name, fallback=False, threads=threads, device=device).backend


def as_backend(backend: Backend | str) -> Backend:
    """Return a backend that is given as an object or by its name.

    Raises:
        TypeError: it is neither.
        ValueError, BackendUnavailableError: see `get_backend`.
    """
    if isinstance(backend, str):
        return get_backend(backend)
    require_type("backend", backend, Backend, "a name or a backend from get_backend")
    return backend


def select_backend(
    name: str, *, fallback: bool, threads: int | None = None, device: int | str | None = None
) -> Selection:
    """Return the backend called `name` with the reason for the choice.

    Args:
        name: name of a backend, or "auto" for the best one that can run here.
        fallback: if the backend cannot run here, return the best CPU backend instead of raising.
        threads: maximum number of CPU threads; None lets the backend choose. Ignored if "auto"
            selects a backend that does not compute on CPU threads.
        device: name of the device to compute on, such as "cuda:0", or its number; see
            `device_name`. None lets the library choose. With "auto", only backends with devices
            are considered. Ignored after a fallback.

    Raises:
        ValueError: the name is unknown; `threads` is below 1 or the backend does not accept it; or
            the backend has no choice of devices.
        BackendUnavailableError: the backend cannot run here, and `fallback` is False; or the device
            does not exist.
    """
    return next(_selections(name, fallback=fallback, threads=threads, device=device))


def select_backends(
    name: str, *, fallback: bool, threads: int | None = None, device: int | str | None = None
) -> list[Selection]:
    """Return every backend that `name` can select: several for "auto", otherwise one.

    Arguments and errors are those of `select_backend`, which returns the first of them.
    """
    return list(_selections(name, fallback=fallback, threads=threads, device=device))


def _selections(
    name: str, *, fallback: bool, threads: int | None, device: int | str | None
) -> Iterator[Selection]:
    """Yield the possible selections with threads and device applied, the best first."""
    if threads is not None:
        threads = as_integer("threads", threads, at_least=1)
    if device is not None:
        device = device_name(device)
    name = backend_name(name)
    candidates = _candidates(name, fallback=fallback)
    if device is not None and name == "auto":
        candidates = _with_devices(candidates, device)
    for selection in candidates:
        backend = selection.backend
        if device is not None and not selection.fell_back:
            backend.take_device(device)
            selection = replace(selection, reason=backend.device_info().name)
        if threads is not None and (name != "auto" or backend.max_threads is not None):
            backend.take_threads(threads)
        yield selection


def _create(source: _Source) -> Backend:
    """Return a new backend, whose class can be pickled from now on."""
    backend: Backend = source.load()()
    copyreg.pickle(type(backend), _reduce)
    return backend


def _reduce(backend: Backend) -> tuple[Callable[..., Backend], tuple[Any, ...]]:
    """Return how a pickle restores a backend: by its name, with its threads and its device."""
    return _restore, (backend.name, backend.threads, backend.device)


def _restore(name: str, threads: int | None, device: str | None) -> Backend:
    """Return the backend that a pickle names.

    Raises:
        ValueError, BackendUnavailableError: see `get_backend`.
    """
    return get_backend(name, threads=threads, device=device)


def _with_devices(selections: Iterator[Selection], device: str) -> Iterator[Selection]:
    """Yield the selections whose backends have a choice of devices.

    Raises:
        ValueError: no backend that "auto" chooses from ever has such a device.
        BackendUnavailableError: no selection has a choice of devices.
    """
    found = False
    passed_over: tuple[str, ...] = ()
    for selection in selections:
        if not selection.backend.devices:
            passed_over = selection.passed_over
            continue
        found = True
        yield selection
    if not found:
        reason = (
            f"no backend that auto can choose here takes a device, got {device} "
            f"({'; '.join(passed_over)})"
        )
        remedy = "leave it out, or name the backend, such as torch"
        if device.startswith("cuda"):
            raise BackendUnavailableError("auto", Availability(False, reason, remedy))
        raise ValueError(f"{reason}; {remedy}")


def _candidates(name: str, *, fallback: bool) -> Iterator[Selection]:
    """Yield the possible selections with default threads and device, the best first."""
    if name == "auto":
        yield from _runnable({known: _BUILT_IN[known] for known in _AUTO})
        return
    source = _source(name)
    availability = _availability(source)
    if availability.ok:
        yield Selection(name, _create(source), availability.reason, fell_back=False)
        return
    if not fallback:
        raise BackendUnavailableError(name, availability)
    on_cpu = {other: _BUILT_IN[other] for other in ("numba", "numpy") if other != name}
    best = next(_runnable(on_cpu))
    reason = f"{name} cannot run here: {availability.reason}; {availability.remedy}"
    yield Selection(name, best.backend, reason, fell_back=True)


def _runnable(sources: dict[str, _Source]) -> Iterator[Selection]:
    """Yield the backends that can run here, each with the reasons why better ones cannot run.

    Raises:
        BackendUnavailableError: none can run.
    """
    passed_over: list[str] = []
    for name, source in sources.items():
        availability = _availability(source)
        if availability.ok:
            yield Selection(
                "auto",
                _create(source),
                "; ".join([availability.reason, *passed_over]),
                fell_back=False,
                passed_over=tuple(passed_over),
            )
        else:
            passed_over.append(f"not {name}: {availability.reason}")
    if len(passed_over) == len(sources):
        raise BackendUnavailableError(
            "auto", Availability(False, "; ".join(passed_over), "see above")
        )


def _source(name: str) -> _Source:
    """Return the source of a known backend; the search for plug-ins takes milliseconds."""
    return _BUILT_IN[name] if name in _BUILT_IN else _sources()[name]


def _sources() -> dict[str, _Source]:
    """Return the source of every known backend, by name."""
    from importlib.metadata import entry_points  # a tenth of the time of `import mnist_accel`

    sources = {**_BUILT_IN}
    for name, backend_class in _registered.items():
        sources[name] = _from_class(backend_class)
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        sources.setdefault(entry_point.name, _plug_in(entry_point.load))
    return sources


def _availability(source: _Source) -> Availability:
    """Return the availability of a backend; an error in its code makes it unavailable."""
    try:
        return source.availability()
    except Exception as error:  # the import of a plug-in may raise anything
        message = " ".join(str(error).split())
        return Availability(
            ok=False,
            reason=f"it is broken ({type(error).__name__}: {message})",
            remedy="reinstall or remove the distribution that provides it",
        )


def _checked(candidate: object) -> type[Backend]:
    """Return a class from outside this package if it is a complete backend.

    Raises:
        TypeError: the object is not a complete backend.
    """
    if not (isinstance(candidate, type) and issubclass(candidate, Backend)):
        raise TypeError(
            f"a backend must be a subclass of backends.Backend, got {candidate!r}; derive it from "
            "that class or from an existing backend"
        )
    missing = sorted(candidate.__abstractmethods__)
    if missing:
        raise TypeError(
            f"backend {candidate.__qualname__} lacks methods that every backend must have; "
            f"implement {', '.join(missing)}"
        )
    return candidate
