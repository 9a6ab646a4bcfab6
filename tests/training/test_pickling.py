"""Networks, trainers and histories survive pickling, copying and other processes."""

import copy
import multiprocessing
import pickle
import re

import joblib
import numpy as np
import pytest

import mnist_accel as ma
from tests.conftest import BACKENDS


def make_trainer(backend):
    model = ma.create_model("two-layer", backend=backend, seed=1)
    return ma.Trainer(model, "adam", lr=0.01, batch_size=10, seed=3, schedule="cosine",
                      total_steps=40)  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    data = ma.load_dataset("digits")
    return data.x_train[:300], data.t_train[:300]


def predict(network, images):
    return network.predict_proba(images)


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@pytest.mark.parametrize(
    "duplicate", [lambda trainer: pickle.loads(pickle.dumps(trainer)), copy.deepcopy]
)
def test_a_copied_trainer_continues_with_the_same_bits(backend, duplicate, digits):
    trainer = make_trainer(backend)
    trainer.fit(*digits, iterations=12)
    copied = duplicate(trainer)
    assert copied.model is not trainer.model
    assert copied.step == 12
    for one in (trainer, copied):
        one.fit(*digits, iterations=20)
    weights = trainer.model.state_dict()
    for name, array in copied.model.state_dict().items():
        assert np.array_equal(array, weights[name]), name


def test_a_copy_changes_nothing_in_the_original(digits):
    trainer = make_trainer("numpy")
    trainer.fit(*digits, iterations=5)
    weights = trainer.model.state_dict()
    copy.deepcopy(trainer).fit(*digits, iterations=5)
    assert trainer.step == 5
    assert np.array_equal(trainer.model.state_dict()["W1"], weights["W1"])


def test_a_restored_network_has_the_backend_with_its_threads():
    model = ma.create_model("two-layer", backend=ma.get_backend("numpy", threads=1))
    backend = pickle.loads(pickle.dumps(model)).backend
    assert (backend.name, backend.threads) == ("numpy", 1)


def test_a_backend_that_cannot_run_after_the_journey_is_the_usual_error(monkeypatch):
    data = pickle.dumps(ma.create_model("two-layer", backend="numpy"))
    data = data.replace(b"\x05numpy", b"\x05numpx")
    with pytest.raises(ValueError, match="unknown backend 'numpx'"):
        pickle.loads(data)


def test_a_history_is_printed_as_one_line(digits):
    history = make_trainer("numpy").fit(*digits, epochs=2)
    line = r"<History of 60 steps; epoch 2: loss \d\.\d{4}, train accuracy \d+\.\d\d%>"
    assert re.fullmatch(line, repr(history))
    history.stop_reason = "converged"
    assert repr(history).endswith("%; stopped: converged>")
    assert repr(ma.History()) == "<History of 0 steps>"


def test_a_history_becomes_a_dict_and_survives_pickling(digits):
    history = make_trainer("numpy").fit(*digits, epochs=2)
    assert pickle.loads(pickle.dumps(history)) == history
    content = history.to_dict()
    assert [epoch["epoch"] for epoch in content["epochs"]] == [1, 2]
    assert content["losses"] == history.losses


def test_a_network_travels_to_spawned_processes_and_through_joblib(digits, tmp_path):
    images = digits[0][:5]
    model = ma.create_model("two-layer", backend="numpy", seed=2)
    expected = model.predict_proba(images)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(predict, (model, images)), expected)
    joblib.dump(model, tmp_path / "model")
    assert np.array_equal(joblib.load(tmp_path / "model").predict_proba(images), expected)


def test_optimizers_and_schedules_can_be_pickled():
    trainer = make_trainer("numpy")
    for value in (trainer.optimizer, trainer.schedule, trainer.progress):
        assert pickle.loads(pickle.dumps(value)) == value
