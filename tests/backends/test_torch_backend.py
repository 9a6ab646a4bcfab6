"""The PyTorch backend, on the CPU."""

import json
import pickle

import numpy as np
import pytest

import mnist_accel as ma
from backends import BackendUnavailableError, get_backend, pip
from backends.torch.backend import TorchBackend
from mnist_accel.commands import main

SMALL = ("--dataset", "digits", "--backend", "torch", "--no-progress", "--log-every", "5")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch")


def test_missing_torch_is_refused_with_the_command_that_installs_it(monkeypatch, capfd):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match=r"PyTorch is not installed; .* pip install"):
        get_backend("torch")
    assert main(["evaluate", "--backend", "torch"]) == 3
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith(f"PyTorch is not installed; {pip('install', 'mnist-accel[torch]')}")


def test_threads_act_within_a_computation_only(torch):
    before = torch.get_num_threads()
    backend = get_backend("torch", threads=before + 1)
    with backend.computation(frozenset()):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_devices_are_the_cpu_and_the_gpus_of_this_machine(torch):
    backend = get_backend("torch", device="cpu")
    assert backend.device == "cpu" == backend.devices[0]
    with pytest.raises(BackendUnavailableError, match=r"it has no device cuda:99, only cpu"):
        backend.take_device("cuda:99")
    assert main(["train", *SMALL, "--device", "cuda:99", "--no-fallback"]) == 3


def test_apple_gpus_refuse_float64(torch):
    backend = TorchBackend()
    backend.device = "mps"
    with pytest.raises(ValueError, match=r"mps has no float64, because .*; use dtype float32 or"):
        backend.asarray(np.zeros(3))
    assert backend.max_threads is None


def test_a_pickle_keeps_device_and_threads(torch):
    backend = pickle.loads(pickle.dumps(get_backend("torch", threads=1, device="cpu")))
    assert (backend.name, backend.threads, backend.device) == ("torch", 1, "cpu")
    model = ma.create_model("two-layer", backend=backend, hidden_sizes=(5,), seed=2)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.state_dict()["W1"], model.state_dict()["W1"])


def test_a_population_has_the_networks_of_single_trainings(torch):
    settings = {"batch_size": 9, "iterations": 20, "limit_train": 200, "limit_test": 100}
    population = ma.train_population(
        "two-layer", seeds=2, data="digits", backend="torch", **settings
    )
    data, backend = ma.load_dataset("digits"), get_backend("torch", threads=1)
    for seed in range(2):
        model = ma.create_model("two-layer", backend=backend, seed=seed)
        trainer = ma.Trainer(model, lr=0.05, batch_size=9, seed=seed, sampling="replacement")
        trainer.fit(data.x_train[:200], data.t_train[:200], iterations=20)
        weights = population[seed].state_dict()
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(weights[name], array)


def test_a_resumed_run_repeats_an_uninterrupted_one(torch, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    flags = ("train", "two-layer", *SMALL, "--threads", "1", "--device", "cpu", "--batch-size", "9")
    assert main([*flags, "--iterations", "30", "--out", "whole"]) == 0
    assert main([*flags, "--iterations", "20", "--out", "parts"]) == 0
    assert main(["train", "--resume", "parts", "--iterations", "30", "--quiet"]) == 0
    used = json.loads((tmp_path / "parts" / "config.json").read_text())["backend"]
    assert (used["used"], used["threads"], used["device"]) == ("torch", 1, "cpu")
    whole, parts = ((tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    for command in (["evaluate", "whole"], ["predict", "whole", "--index", "0"]):
        assert main([*command, "--backend", "torch", "--device", "cpu"]) == 0
    capfd.readouterr()
    assert main(["train", "--resume", "parts", "--iterations", "31", "--device", "mps:2"]) == 2
