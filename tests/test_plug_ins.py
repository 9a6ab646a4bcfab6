"""Backends that other distributions offer, and those that cannot run."""

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from strict_backend import StrictBackend

from backends import (
    Availability,
    BackendUnavailableError,
    available_backends,
    get_backend,
    register,
    select_backend,
)
from backends.numpy_backend import NumpyBackend
from mnist_accel.data import Dataset
from mnist_accel.models import create_model
from mnist_accel.trainer import Trainer

BUILT_IN = ("cupy", "numba", "numpy")


class Broken(NumpyBackend):
    name: ClassVar[str] = "broken"

    @classmethod
    def availability(cls) -> Availability:
        return Availability(ok=False, reason="the fuse has blown", remedy="replace the fuse")


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.registry._registered", {})


def install(site: Path, monkeypatch: pytest.MonkeyPatch, entry_points: str) -> None:
    """Lay out a distribution as an installer does, with its entry points."""
    metadata = site / "example_plug_in-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: example-plug-in\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(f"[mnist_accel.backends]\n{entry_points}\n")
    monkeypatch.syspath_prepend(site)


def test_registered_backend_trains_by_name(mnist: Dataset) -> None:
    register(StrictBackend)
    model = create_model("two-layer", backend="array-api-strict", hidden_sizes=(4,))
    assert type(model.backend) is StrictBackend
    loss = Trainer(model, lr=0.05).train_batch(mnist.x_train[:8], mnist.t_train[:8])
    assert loss == pytest.approx(2.3, abs=0.1)  # log 10, from weights near 0


def test_installed_backend_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "example_plug_in.py").write_text(
        "from backends.numpy_backend import NumpyBackend\n"
        "class ExampleBackend(NumpyBackend):\n    name = 'example'\n"
    )
    install(tmp_path, monkeypatch, "example = example_plug_in:ExampleBackend")
    assert available_backends()["example"].ok
    assert tuple(available_backends())[:3] == BUILT_IN
    assert type(get_backend("example")).__name__ == "ExampleBackend"


def test_plug_in_that_cannot_be_imported_is_listed_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sick_plug_in.py").write_text("raise OSError('libdevice.so is missing')\n")
    install(tmp_path, monkeypatch, "sick = sick_plug_in:Backend")
    found = available_backends()
    assert found["numpy"].ok
    assert not found["sick"].ok
    assert "OSError: libdevice.so is missing" in found["sick"].reason
    assert found["sick"].remedy


@pytest.mark.parametrize("name", ["get", "select"])
def test_choosing_a_plug_in_that_cannot_be_imported_is_an_unavailable_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "sick_plug_in.py").write_text("raise OSError('libdevice.so is missing')\n")
    install(tmp_path, monkeypatch, "sick = sick_plug_in:Backend")
    if name == "get":
        with pytest.raises(BackendUnavailableError, match="libdevice"):
            get_backend("sick")
    else:
        selection = select_backend("sick", fallback=True)
        assert selection.fell_back
        assert "libdevice" in selection.reason


def test_unavailable_backend_raises_its_reason_and_remedy() -> None:
    register(Broken)
    with pytest.raises(BackendUnavailableError, match=r"'broken'.*fuse has blown; replace") as info:
        get_backend("broken")
    assert info.value.name == "broken"
    assert not info.value.availability


def test_fallback_takes_the_best_on_the_cpu_and_says_why() -> None:
    register(Broken)
    selection = select_backend("broken", fallback=True)
    assert selection.requested == "broken"
    assert selection.fell_back
    assert selection.backend.name == "numba"
    assert "the fuse has blown" in selection.reason
    assert "replace the fuse" in selection.reason


def test_auto_names_what_spoke_against_the_better_ones() -> None:
    selection = select_backend("auto", fallback=False)
    assert not selection.fell_back
    better = BUILT_IN[: BUILT_IN.index(selection.backend.name)]
    for name in better:
        assert f"not {name}: {available_backends()[name].reason}" in selection.reason


def test_name_of_a_built_in_backend_is_taken() -> None:
    class Impostor(NumpyBackend):
        name = "numpy"

    with pytest.raises(ValueError, match="'numpy' is taken"):
        register(Impostor)


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    register(Broken)
    with pytest.raises(ValueError, match=r"unknown backend 'tpu'; choose auto, cupy, .*broken"):
        get_backend("tpu")


def run_suite(*options: str) -> subprocess.CompletedProcess[str]:
    """Run one small contract test for every backend."""
    contract = Path(__file__).with_name("test_backend_contract.py")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(contract), "-k", "test_device_is", *options],
        cwd=contract.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


def test_required_backend_that_cannot_run_fails_the_suite() -> None:
    missing = {name: found for name, found in available_backends().items() if not found.ok}
    if not missing:
        pytest.skip("every backend can run here")
    name, availability = next(iter(missing.items()))
    result = run_suite("--require-backend", name)
    assert result.returncode == 1, result.stdout
    assert f"{name} cannot run here: {availability.reason}" in result.stdout
    assert "1 error" in result.stdout or "1 failed" in result.stdout


def test_suite_refuses_to_require_an_unknown_backend() -> None:
    result = run_suite("--require-backend", "tpu")
    assert result.returncode == 4
    assert "--require-backend: unknown backend tpu; choose cupy, numba, numpy" in result.stderr
