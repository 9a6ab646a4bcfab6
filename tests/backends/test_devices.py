"""`--device` and `get_backend(device=)` select a GPU, and all work of a backend stays on it."""

import json
from pathlib import Path

import numpy as np
import pytest

from backends import (
    Availability,
    BackendUnavailableError,
    DeviceInfo,
    Table,
    get_backend,
    register,
    registry,
    select_backend,
)
from backends.numpy.backend import NumpyBackend
from mnist_accel.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from mnist_accel.commands import main
from mnist_accel.diagnostics.gradient_check import check_gradients
from mnist_accel.recipes.models import create_model
from mnist_accel.training.evaluation import evaluate
from mnist_accel.training.trainer import Trainer
from tests.support.cuda_emulator.raw_module import Emulator
from tests.support.emulated_backend import EmulatedBackend


class ThreeDevices(NumpyBackend):
    """The NumPy backend, which claims to have three devices."""

    name = "three"
    devices = ("cuda:0", "cuda:1", "cuda:2")
    max_threads = None

    @classmethod
    def availability(cls):
        return Availability(ok=True, reason="device 0")

    def device_info(self):
        return DeviceInfo(f"device {self.device or 'cuda:0'}", None, {"numpy": np.__version__})


@pytest.fixture(autouse=True)
def three(monkeypatch):
    """Register `ThreeDevices` as the backend "three"."""
    monkeypatch.setattr(registry, "_registered", Table("backend", {}))
    register(ThreeDevices)


@pytest.fixture
def gpu(monkeypatch):
    """Make "auto" select `ThreeDevices`, in place of the GPU backend."""
    monkeypatch.setitem(registry._BUILT_IN, "cupy", registry._from_class(ThreeDevices))


@pytest.fixture
def no_gpu(monkeypatch):
    missing = Availability(ok=False, reason="no driver", remedy="install it")
    monkeypatch.setattr("backends.cupy.probe.availability", lambda: missing)


def test_device_argument_selects_the_device():
    assert get_backend("three").device is None
    selection = select_backend("three", fallback=False, device=2)
    assert (selection.backend.device, selection.reason) == ("cuda:2", "device cuda:2")


@pytest.mark.parametrize("name", ["mps", "cuda:3"])
def test_missing_device_is_refused(name):
    message = (
        f"'three' cannot run here: it has no device {name}, only cuda:0, cuda:1 and cuda:2; choose "
        "another device$"
    )
    with pytest.raises(BackendUnavailableError, match=message):
        get_backend("three", device=name)
    single = EmulatedBackend()
    with pytest.raises(BackendUnavailableError, match=r"it has no device cuda:1, only cuda:0; "):
        single.take_device("cuda:1")


def test_backend_without_devices_refuses_a_device():
    with pytest.raises(
        ValueError, match=r"'numpy' does not take a device, got cuda:0; leave it out$"
    ):
        get_backend("numpy", device=0)


def test_auto_with_a_device_selects_a_gpu_backend(gpu):
    assert get_backend("auto", device=1).device == "cuda:1"
    with pytest.raises(BackendUnavailableError, match="it has no device cuda:3, only cuda:0, "):
        get_backend("auto", device=3)


def test_auto_with_a_device_fails_without_a_gpu(no_gpu):
    message = (
        "no backend that auto can choose here takes a device, got {} (not cupy: no driver); "
        "leave it out, or name the backend, such as torch"
    )
    with pytest.raises(BackendUnavailableError) as missing:
        get_backend("auto", device=1)
    assert str(missing.value) == f"backend 'auto' cannot run here: {message.format('cuda:1')}"
    with pytest.raises(ValueError) as wrong:
        get_backend("auto", device="cpu")
    assert str(wrong.value) == message.format("cpu")


def test_fallback_to_the_cpu_ignores_the_device(no_gpu):
    selection = select_backend("cupy", fallback=True, device=1)
    assert selection.fell_back
    assert selection.backend.device is None
    assert selection.reason == "cupy cannot run here: no driver; install it"


# -------------------------------------------------------------------------------- the commands


@pytest.fixture
def fails(capfd):
    def fails(code, *arguments):
        """Run a command with invalid arguments; return the one line of its error message."""
        assert main([str(argument) for argument in arguments]) == code
        (line,) = capfd.readouterr().err.splitlines()
        return line

    return fails


@pytest.mark.parametrize("command", ["train", "evaluate", "gradcheck"])
def test_commands_refuse_an_invalid_device(fails, command):
    data = () if command == "gradcheck" else ("--dataset", "digits")
    run = (command, *data)
    line = fails(2, *run, "--backend", "numpy", "--device", 1)
    assert line.endswith("backend 'numpy' does not take a device, got cuda:1; leave it out")
    line = fails(3, *run, "--backend", "three", "--device", 3)
    assert line.endswith(
        "it has no device cuda:3, only cuda:0, cuda:1 and cuda:2; choose another --device"
    )
    line = fails(2, *run, "--device=-1")
    assert "--device: expected a device cpu, cuda:N, mps or xpu:N, got '-1'" in line


def test_compare_passes_the_device_to_backends_that_have_devices(fails, capfd, monkeypatch):
    compare = ("compare", "--dataset", "digits", "--iterations", "1", "--backends")
    line = fails(2, *compare, "numpy,numpy", "--device", 0)
    assert line.endswith("backend 'numpy' does not take a device, got cuda:0; leave it out")
    taken = []
    monkeypatch.setattr(ThreeDevices, "take_device", lambda self, name: taken.append(name))
    assert main([*compare, "numpy,three", "--device", "2"]) == 0
    assert taken == ["cuda:2"]
    assert "of three compared with eager steps of numpy" in capfd.readouterr().out


def test_run_records_its_device_and_resumes_on_it(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    small = ("--dataset", "digits", "--backend", "three", "--quiet")

    def run(*arguments):
        assert main(["train", *map(str, arguments), "--no-progress"]) == 0, capfd.readouterr().err
        return json.loads(Path("run/config.json").read_text())

    config = run(*small, "--device", 2, "--iterations", 3, "--out", "run")
    assert (config["settings"]["device"], config["backend"]["device"]) == ("cuda:2", "cuda:2")
    assert config["device"]["name"] == "device cuda:2"
    assert run("--resume", "run", "--iterations", 4)["backend"]["device"] == "cuda:2"
    assert run("--resume", "run", "--iterations", 5, "--device", 0)["backend"]["device"] == "cuda:0"
    monkeypatch.setattr(ThreeDevices, "devices", ())
    assert run("--resume", "run", "--iterations", 6, "--backend", "numpy")["backend"] == {
        **config["backend"],
        "requested": "numpy",
        "used": "numpy",
        "device": None,
        "reason": f"NumPy {np.__version__}",
        "not_compiled": "the backend numpy has no compiled epochs",
    }


def test_output_of_train_names_the_device(tmp_path, capfd):
    flags = ["--dataset", "digits", "--backend", "three", "--device", "1", "--iterations", "2"]
    assert main(["train", *flags, "--out", str(tmp_path / "run")]) == 0
    assert "backend three, device cuda:1 (device cuda:1)" in capfd.readouterr().err


# ----------------------------------------------------------------------------- the CuPy backend


class TrackedArray(np.ndarray):
    """An array that records which GPU is selected when NumPy computes with it or writes to it."""

    emulator: Emulator

    def __array_finalize__(self, parent):
        if isinstance(parent, TrackedArray):
            self.emulator = parent.emulator

    def __setitem__(self, place, value):
        self.emulator.mark_used()
        super().__setitem__(place, value)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        self.emulator.mark_used()
        plain = [np.asarray(one) if isinstance(one, TrackedArray) else one for one in inputs]
        if out is not None:
            options["out"] = tuple(np.asarray(one) for one in out)
        return getattr(ufunc, method)(*plain, **options)


class TrackedBackend(EmulatedBackend):
    """The emulated backend; it also tracks operations that NumPy computes instead of a kernel."""

    def asarray(self, host, *, dtype=None):
        array = super().asarray(host, dtype=dtype).view(TrackedArray)
        array.emulator = self.emulator
        return array


@pytest.mark.emulated
@pytest.mark.parametrize(("batch_size", "compiled"), [(17, True), (2, True), (5, False)])
def test_all_work_runs_on_the_selected_gpu(tmp_path, mnist, batch_size, compiled):
    used = []
    for device in (None, "cuda:1"):
        backend = TrackedBackend(devices=2)
        if device is not None:
            backend.take_device(device)
        images, labels = mnist.x_train[:20], mnist.t_train[:20]
        model = create_model("two-layer", backend=backend, hidden_sizes=(5,))
        trainer = Trainer(model, "momentum", batch_size=batch_size, compiled=compiled)
        trainer.fit(images, labels, epochs=2, validation_data=(images, labels))
        trainer.train_batch(images, labels)
        save_checkpoint(tmp_path, trainer)
        trainer = load_checkpoint(tmp_path, backend=backend)
        trainer.fit(images, labels, iterations=1)
        evaluate(model, images, labels)
        model.load_state_dict(model.state_dict())
        check_gradients(
            create_model("two-layer", backend=backend, hidden_sizes=(5,), dtype="float64"),
            images[:2] / 255,
            labels[:2],
            elements=2,
        )
        backend.synchronize()
        assert backend.emulator.selected_device == 0
        used.append(backend.emulator.used_devices)
    assert used == [{0}, {1}]


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cupy"], indirect=True)
def test_arrays_are_allocated_on_the_selected_gpu(backend):
    last = len(backend.devices) - 1
    other = get_backend("cupy", device=last)
    array = other.asarray(np.arange(3.0))
    assert array.device.id == last
    np.testing.assert_array_equal(other.to_numpy(array), np.arange(3.0))
