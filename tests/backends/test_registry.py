"""The registry of backends: names, availability, fallback, registration and plug-ins."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from backends import (
    Availability,
    Backend,
    BackendUnavailableError,
    Table,
    available_backends,
    backend_availability,
    backend_name,
    device_name,
    get_backend,
    register,
    registry,
    select_backend,
    select_backends,
)
from backends.cupy.backend import CupyBackend
from backends.numba.backend import NumbaBackend
from backends.numpy.backend import NumpyBackend


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    """Run the test without registered backends, and restore them afterwards."""
    monkeypatch.setattr(registry, "_registered", Table("backend", {}))


@pytest.fixture
def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.fixture
def no_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution with a backend entry point, as pip does."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, code, target="Plugin"):
        module = f"{name}_distribution"
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[mnist_accel.backends]\n{name} = {module}:{target}\n"
        )
        assert metadata.version(module) == "1.0"

    return install


WORKING_PLUGIN = """
from backends.numpy.backend import NumpyBackend

class Plugin(NumpyBackend):
    name = "lucky"
"""


def make_backend(name, availability=None):
    """Return a class that computes with NumPy, with this name and availability."""
    availability = availability or Availability(ok=True, reason="available")
    body = {"name": name, "availability": classmethod(lambda cls: availability)}
    return type("Made", (NumpyBackend,), body)


def test_built_in_backends_are_listed_best_first(no_cupy):
    found = available_backends()
    assert list(found)[:3] == ["cupy", "numba", "numpy"]
    assert not found["cupy"].ok
    assert found["numpy"].ok


def test_get_backend_returns_a_new_instance_by_name():
    backend = get_backend("numpy")
    assert type(backend) is NumpyBackend
    assert type(get_backend("numba")) is NumbaBackend
    assert get_backend("numpy") is not backend  # there is no global backend


def test_auto_prefers_the_gpu_then_numba_then_numpy(monkeypatch):
    with monkeypatch.context() as gpu:
        working = Availability(ok=True, reason="a GPU")
        gpu.setattr("backends.cupy.probe.availability", lambda: working)
        gpu.setattr(CupyBackend, "__init__", lambda self: None)
        selection = select_backend("auto", fallback=False)
        assert selection.backend.name == "cupy"
        assert selection.reason == "a GPU"
    monkeypatch.setitem(sys.modules, "cupy", None)
    selection = select_backend("auto", fallback=False)
    assert selection.backend.name == "numba"
    assert selection.reason.endswith("; not cupy: CuPy is not installed")
    monkeypatch.setitem(sys.modules, "numba", None)
    selection = select_backend("auto", fallback=False)
    assert selection.backend.name == "numpy"
    assert selection.reason.endswith(
        "; not cupy: CuPy is not installed; not numba: Numba is not installed"
    )
    assert (selection.requested, selection.fell_back) == ("auto", False)
    assert get_backend().name == "numpy"


def test_error_lists_every_reason_if_no_backend_can_run(no_cupy, no_numba, monkeypatch):
    broken = Availability(ok=False, reason="NumPy is broken", remedy="reinstall NumPy")
    monkeypatch.setattr("backends.numpy.probe.availability", lambda: broken)
    with pytest.raises(BackendUnavailableError) as caught:
        get_backend("auto")
    for reason in ("CuPy is not installed", "Numba is not installed", "NumPy is broken"):
        assert reason in caught.value.availability.reason


@pytest.mark.parametrize("library", ["numba", "cupy"])
def test_backend_module_is_imported_only_if_its_library_is_available(library):
    code = (
        "import sys\n"
        f"sys.modules[{library!r}] = None\n"
        "from backends import available_backends, get_backend\n"
        f"assert not available_backends()[{library!r}].ok\n"
        "get_backend('auto')\n"
        f"print('backends.{library}.backend' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "False\n"


@pytest.mark.parametrize("backend_class", [CupyBackend, NumbaBackend, NumpyBackend])
def test_built_in_classes_return_the_availability_of_their_probe(backend_class):
    assert backend_class.availability() == available_backends()[backend_class.name]


def test_unknown_name_lists_the_choices(install):
    install("lucky", WORKING_PLUGIN)
    register(make_backend("made"))
    with pytest.raises(ValueError) as caught:
        get_backend("opencl")
    assert str(caught.value) == (
        "unknown backend 'opencl'; choose from auto, cupy, numba, numpy, torch, made, lucky"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("NumPy", "numpy"),
        ("cuda", "cupy"),
        ("GPU", "cupy"),
        ("AUTO", "auto"),
        ("my_own", "my-own"),
    ],
)
def test_names_are_accepted_in_other_spellings(name, meant):
    register(make_backend("my-own"))
    assert backend_name(name) == meant


def test_a_name_that_fits_several_backends_is_refused():
    with pytest.raises(ValueError, match="backend 'cpu' is ambiguous; choose numba or numpy"):
        get_backend("cpu")
    with pytest.raises(TypeError, match=r"backend must be one of auto, .*, got None"):
        get_backend(None)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (2, "cuda:2"),
        ("0", "cuda:0"),
        ("cuda", "cuda:0"),
        ("GPU:12", "cuda:12"),
        ("CPU", "cpu"),
        ("mps", "mps"),
        ("xpu", "xpu:0"),
        ("xpu:1", "xpu:1"),
    ],
)
def test_every_spelling_of_a_device_has_one_name(given, name):
    assert device_name(given) == name


@pytest.mark.parametrize("device", ["cpu:0", "mps:1", "-1", "cuda:-1", "0.5", "", "tpu", -1, True])
def test_other_texts_are_no_device(device):
    with pytest.raises(ValueError, match="expected a device cpu, cuda:N, mps or xpu:N, got"):
        get_backend("numpy", device=device)


@pytest.mark.parametrize("device", [1.0, ["cuda"]])
def test_a_device_is_a_text_or_a_number(device):
    with pytest.raises(TypeError, match="device must be a name such as 'cuda:0', or its number"):
        get_backend("numpy", device=device)


def test_auto_does_not_choose_torch():
    assert "torch" not in {s.backend.name for s in select_backends("auto", fallback=False)}


def test_unavailable_backend_raises_with_reason_and_remedy(no_cupy):
    with pytest.raises(BackendUnavailableError) as caught:
        get_backend("cupy")
    error = caught.value
    assert error.name == "cupy"
    assert error.availability == CupyBackend.availability()
    assert error.availability.reason == "CuPy is not installed"
    assert "pip install" in error.availability.remedy
    assert str(error) == (
        f"backend 'cupy' cannot run here: CuPy is not installed; {error.availability.remedy}"
    )


@pytest.mark.parametrize("numba_runs", [True, False])
def test_fallback_selects_the_best_cpu_backend(numba_runs, no_cupy, monkeypatch):
    if not numba_runs:
        monkeypatch.setitem(sys.modules, "numba", None)
    selection = select_backend("cupy", fallback=True)
    assert selection.fell_back
    assert selection.requested == "cupy"
    assert selection.backend.name == ("numba" if numba_runs else "numpy")
    assert selection.reason.startswith("cupy cannot run here: CuPy is not installed; ")
    assert "pip install" in selection.reason


def test_available_backend_does_not_fall_back():
    selection = select_backend("numpy", fallback=True)
    assert (selection.backend.name, selection.fell_back) == ("numpy", False)


def test_registering_a_class_twice_is_allowed():
    made = make_backend("made")
    register(made)
    register(made)  # a module that is imported twice does this
    assert available_backends()["made"].ok
    assert type(get_backend("made")) is made


def test_message_suggests_the_name_for_a_misspelled_one(install):
    install("lucky", WORKING_PLUGIN)
    for name, match in (("nunpy", "numpy"), ("aut", "auto"), ("luky", "lucky")):
        with pytest.raises(ValueError, match=rf"unknown backend '{name}'; .*mean '{match}'\?$"):
            get_backend(name)


class NotABackend:
    name = "none"


class Unfinished(Backend):
    name = "unfinished"

    @classmethod
    def availability(cls):
        return Availability(ok=True, reason="available")

    def synchronize(self):
        pass


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (NotABackend, "must be a subclass of backends.Backend, got <class .*NotABackend'>; derive"),
        (NumpyBackend(), r"must be a subclass of backends.Backend, got NumpyBackend\(\); derive"),
        (Unfinished, "Unfinished lacks methods .*; implement asarray, device_info, to_numpy$"),
    ],
)
def test_registering_an_invalid_backend_is_refused(candidate, message):
    before = available_backends().keys()
    with pytest.raises(TypeError, match=message):
        register(candidate)
    assert available_backends().keys() == before


@pytest.mark.parametrize("name", ["numpy", "numba", "cupy", "Num-Py", "auto"])
def test_registering_a_built_in_name_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' is taken by a built-in backend"):
        register(make_backend(name))


def test_registering_a_registered_name_is_refused():
    first = make_backend("made")
    register(first)
    other = make_backend("Made")
    other.__qualname__ = "Other"
    with pytest.raises(ValueError, match=r"the backend 'made' exists already \(.*Made\)"):
        register(other)
    assert type(get_backend("made")) is first


def test_a_class_that_is_defined_again_replaces_its_earlier_definition():
    register(make_backend("made"))
    again = make_backend("made")
    register(again)
    assert type(get_backend("made")) is again


def test_installed_plug_in_is_found_by_name(install):
    install("lucky", WORKING_PLUGIN)
    assert available_backends()["lucky"].ok
    backend = get_backend("lucky")
    assert backend.name == "lucky"
    assert type(backend).__module__ == "lucky_distribution"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise OSError('libfoo.so:\\n  not found')", "OSError: libfoo.so: not found"),
        ("Plugin = None", "TypeError: a backend must be a subclass of backends.Backend, got None"),
        ("class Plugin: name = 'unlucky'", "TypeError: a backend must be a subclass of"),
        (
            "import backends\nclass Plugin(backends.Backend): name = 'unlucky'",
            "TypeError: backend Plugin lacks methods that every backend must have; implement ",
        ),
        (WORKING_PLUGIN.replace("Plugin", "Other"), "AttributeError: module"),
    ],
)
def test_broken_plug_in_is_unavailable_with_the_cause(code, cause, install):
    install("unlucky", code)
    found = available_backends()
    assert found["unlucky"].reason.startswith(f"it is broken ({cause}")
    assert "reinstall or remove" in found["unlucky"].remedy
    assert found["numpy"].ok
    with pytest.raises(BackendUnavailableError, match="'unlucky' cannot run here: it is broken"):
        get_backend("unlucky")


def test_plug_in_cannot_replace_a_built_in_backend(install):
    install("numpy", WORKING_PLUGIN)
    assert type(get_backend("numpy")) is NumpyBackend


def test_auto_never_selects_a_plug_in(install, no_cupy, no_numba, monkeypatch):
    install("lucky", WORKING_PLUGIN)
    register(make_backend("made"))
    assert get_backend("auto").name == "numpy"
    broken = Availability(ok=False, reason="NumPy is broken", remedy="reinstall NumPy")
    monkeypatch.setattr("backends.numpy.probe.availability", lambda: broken)
    with pytest.raises(BackendUnavailableError):
        get_backend("auto")


def test_auto_does_not_import_plug_ins(install, no_cupy):
    install("lucky", WORKING_PLUGIN)
    get_backend("auto")
    assert not isinstance(sys.modules.get("lucky_distribution"), ModuleType)


def test_threads_argument_sets_the_number_of_threads(no_cupy):
    for name in ("numpy", "numba"):
        assert get_backend(name).threads is None
        assert get_backend(name, threads=3).threads == 3
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        get_backend("numpy", threads=0)
    assert select_backend("cupy", fallback=True, threads=2).backend.threads == 2


class DeviceBackend(Unfinished):
    """A backend that does not compute on CPU threads."""

    name = "device"

    def asarray(self, host, *, dtype=None):
        raise NotImplementedError

    to_numpy = device_info = asarray


def test_backend_without_threads_refuses_a_number_of_threads(monkeypatch):
    register(DeviceBackend)
    with pytest.raises(ValueError, match="'device' does not take a number of threads, got 2"):
        get_backend("device", threads=2)
    monkeypatch.setitem(registry._BUILT_IN, "cupy", registry._from_class(DeviceBackend))
    # With "auto", a number of threads is ignored if the selected backend does not use it.
    assert get_backend("auto", threads=2).threads is None


def test_select_backends_auto_returns_all_available_backends(no_cupy):
    selections = select_backends("auto", fallback=False, threads=1)
    assert [selection.backend.name for selection in selections] == ["numba", "numpy"]
    assert [selection.backend.threads for selection in selections] == [1, 1]
    assert selections[1].passed_over == ("not cupy: CuPy is not installed",)
    assert [s.backend.name for s in select_backends("numpy", fallback=False)] == ["numpy"]


def test_the_availability_of_one_backend_imports_no_other_library():
    code = (
        "import sys\n"
        "from backends import backend_availability\n"
        "assert backend_availability('numpy').ok\n"
        "assert not {'cupy', 'numba', 'torch'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_auto_is_no_backend():
    with pytest.raises(ValueError, match="auto is no backend"):
        backend_availability("auto")
