"""Populations in memory: their members, statistics, choice and ensemble."""

import math
import os
import signal
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest

import mnist_accel as ma
from backends import get_backend
from mnist_accel.populations import Population
from mnist_accel.populations.grid import make_grid
from mnist_accel.populations.member import MemberResult, MemberTraining
from mnist_accel.runs.setup import load_run_data, make_trainer

SETTINGS = {"epochs": 1, "batch_size": 10, "limit_train": 300, "limit_test": 100}


@pytest.fixture(scope="module")
def population():
    return ma.train_population(
        "two-layer", seeds=3, lr=[0.1, 0.5], data="digits", backend="numpy",
        **SETTINGS,
    )  # fmt: skip


def test_the_table_has_a_row_per_member_with_its_seed_and_settings(population):
    table = population.table
    assert [(r["member"], r["seed"], r["lr"]) for r in table] == [
        (0, 0, 0.1), (1, 1, 0.1), (2, 2, 0.1), (3, 0, 0.5), (4, 1, 0.5), (5, 2, 0.5),
    ]  # fmt: skip
    assert all(0 <= row["test_accuracy"] <= 1 and row["seconds"] > 0 for row in table)


def test_a_row_has_the_results_of_its_network(population):
    data = ma.load_dataset("digits")
    result = ma.evaluate(population[4], data.x_test[:100], data.t_test[:100])
    row = population.table[4]
    assert (row["test_accuracy"], row["test_loss"]) == (result.accuracy, result.loss)


def test_the_summary_has_mean_and_deviation_of_each_setting(population):
    accuracies = [row["test_accuracy"] for row in population.table if row["lr"] == 0.5]
    row = population.summary()[1]
    assert (row["lr"], row["n"], row["failed"]) == (0.5, 3, 0)
    assert (row["mean"], row["std"]) == (np.mean(accuracies), np.std(accuracies, ddof=1))


def test_a_comparison_pairs_members_with_equal_seeds(population):
    accuracies = {(row["lr"], row["seed"]): row["test_accuracy"] for row in population.table}
    expected = np.mean([accuracies[0.5, seed] - accuracies[0.1, seed] for seed in range(3)])
    assert population.compare(lr=(0.1, 0.5)).difference == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one setting with two values, got 0 settings"),
        ({"lr": (0.1, 0.3)}, "no member has lr=0.3; the values are 0.1, 0.5"),
        ({"lr": 0.1}, "lr needs a pair of values, got 0.1"),
        ({"momentum": (0.1, 0.3)}, "unknown varied setting 'momentum'"),
        ({"lr": (0.1, 0.5), "measure": "beauty"}, "unknown measure 'beauty'"),
    ],
)
def test_a_comparison_that_is_not_possible_is_refused(population, arguments, message):
    with pytest.raises(ValueError, match=message):
        population.compare(**arguments)


def test_the_best_network_has_the_highest_validation_accuracy(population):
    accuracies = [row["validation_accuracy"] for row in population.table]
    assert population.best() is population[int(np.argmax(accuracies))]


def test_the_best_network_is_never_chosen_on_the_test_set(population):
    with pytest.raises(ValueError, match="would be biased"):
        population.best("test_accuracy")


@pytest.mark.parametrize("labels", [np.array(["no", "yes"]), np.array([7, 40]), np.eye(2)])
def test_arrays_may_have_any_form_and_any_classes(labels):
    rng = np.random.default_rng(0)
    targets = labels[np.arange(30) % 2]
    for examples in (rng.normal(size=(30, 5)), rng.integers(0, 256, (30, 1, 8, 8), np.uint8)):
        data = (examples[:20], targets[:20]), (examples[20:], targets[20:])
        population = ma.train_population(
            "two-layer", seeds=1, data=data, backend="numpy", epochs=1, batch_size=10
        )
        assert population[0].classes == 2
        assert population[0].predict(examples[:3]).shape == (3,)


def test_arrays_of_load_mnist_have_ten_digits_in_every_form():
    (x_train, t_train), (x_test, t_test) = ma.load_mnist(dataset="digits")
    weights = []
    for shape, one_hot in (((-1, 784), False), ((-1, 1, 28, 28), True)):
        t = [np.eye(10)[t[:50] % 3] if one_hot else t[:50] % 3 for t in (t_train, t_test)]
        data = (x_train[:50].reshape(shape), t[0]), (x_test[:50].reshape(shape), t[1])
        population = ma.train_population(
            "two-layer", seeds=1, data=data, backend="numpy", epochs=1, batch_size=10
        )
        weights.append(population[0].state_dict()["W2"])
    assert weights[0].shape[1] == 10
    assert np.array_equal(*weights)


def test_arrays_that_do_not_fit_are_refused():
    x, t = np.zeros((4, 3)), np.array([0.5, 1, 1, 0.5])
    with pytest.raises(ValueError, match=r"data has the label 0\.5 among"):
        ma.train_population("two-layer", seeds=1, data=((x, t), (x, t)), backend="numpy")


def test_without_held_out_images_there_is_no_best_network():
    population = ma.train_population(
        "two-layer", seeds=1, data="digits", backend="numpy", **SETTINGS
    )
    with pytest.raises(ValueError, match="train the population with validation_split"):
        population.best()


def test_the_ensemble_is_the_mean_of_the_networks(population):
    images = ma.load_dataset("digits").x_test[:5]
    mean = np.mean([network.predict_proba(images) for network in population], axis=0)
    assert np.allclose(population.predict_proba(images), mean)
    assert np.array_equal(population.predict(images), mean.argmax(axis=1))


@pytest.mark.parametrize("model", ["two-layer", "cnn"])
def test_a_member_on_numba_is_identical_to_a_single_training(model):
    population = ma.train_population(model, seeds=3, data="digits", backend="numba", **SETTINGS)
    settings = population.grid.members[2]
    data = load_run_data(settings)
    trainer = make_trainer(settings, get_backend("numba", threads=1), examples=data.train_count)
    trainer.fit(*data.train, epochs=1)
    for name, weight in trainer.model.state_dict().items():
        assert np.array_equal(population[2].state_dict()[name], weight)


def test_the_number_of_threads_changes_no_bit():
    one, four = (
        ma.train_population(
            "two-layer", seeds=4, data="digits", backend="numba", threads=threads, **SETTINGS
        )
        for threads in (1, 4)
    )
    for a, b in zip(one, four, strict=True):
        assert np.array_equal(a.parameters.flat, b.parameters.flat)


def test_an_executor_gives_the_same_members():
    data = ma.load_dataset("digits")
    arrays = (data.x_train, data.t_train), (data.x_test, data.t_test)
    settings = {"seeds": 3, "data": arrays, "backend": "numpy", **SETTINGS}
    local = ma.train_population("two-layer", **settings)
    with ThreadPoolExecutor(2) as executor:
        remote = ma.train_population("two-layer", executor=executor, **settings)
    for a, b in zip(local, remote, strict=True):
        assert np.array_equal(a.parameters.flat, b.parameters.flat)


def test_a_member_that_diverges_is_counted_and_does_not_stop_the_others():
    population = ma.train_population(
        "two-layer", seeds=2, lr=[0.1, 1e30], data="digits", backend="numpy", **SETTINGS
    )
    assert population.failed == 2
    diverged = population.table[2]
    assert diverged["status"] == "failed"
    assert "diverged at step" in diverged["note"]
    assert [(row["n"], row["failed"]) for row in population.summary()] == [(2, 0), (0, 2)]
    assert math.isnan(population.summary()[1]["mean"])
    with pytest.raises(ValueError, match="member 2 has no trained network: training diverged"):
        population[2]


def test_a_member_whose_test_loss_is_not_finite_has_failed():
    settings = {**SETTINGS, "epochs": None, "iterations": 1, "lr": 1e38}
    population = ma.train_population(
        "two-layer", seeds=1, data="digits", backend="numpy", **settings
    )
    row = population.table[0]
    assert (row["status"], row["test_accuracy"]) == ("failed", None)
    assert str(population.summary()).split()[-4:] == ["-"] * 4
    for choose in (population.best, lambda: population.predict_proba(np.zeros((1, 784)))):
        with pytest.raises(ValueError, match="no member of the population has ended without an"):
            choose()
    assert "training diverged: the test loss after step 1 is nan" in row["note"]


def test_tables_show_settings_without_rounding():
    grid = make_grid("fcnn", seeds=1, given={"lr": [1e-5, 0.00125], "hidden_sizes": [[9, 8], [7]]},
                     fixed={})  # fmt: skip
    population = Population(grid, [], backend="numpy")
    assert repr(population).startswith("<Population of 4 × fcnn (1 seed × lr × hidden_sizes)")
    for text in (str(population.table), str(population.summary())):
        assert [line for line in text.splitlines() if "1e-05" in line and "9,8" in line]
        assert "0.00125" in text


def test_a_comparison_leaves_out_members_whose_partner_failed():
    given = {"batch_size": [10, 20], "lr": [0.1, 0.2]}
    grid = make_grid("two-layer", seeds=2, given=given, fixed={})
    results = [
        MemberResult(number, test_accuracy=0.5 if settings.batch_size == 10 else 0.9)
        for number, settings in enumerate(grid.members)
    ]
    results[0] = MemberResult(0, error="training diverged")
    comparison = Population(grid, results, backend="numpy").compare(lr=(0.1, 0.2))
    assert (comparison.n, comparison.difference) == (2, 0)


def test_hidden_sizes_are_compared_as_they_were_given():
    sizes = [[9, 8], [7]]
    grid = make_grid("fcnn", seeds=2, given={"hidden_sizes": sizes}, fixed={})
    results = [MemberResult(k, test_accuracy=value) for k, value in enumerate([0.5, 0.6, 0.7, 0.9])]
    comparison = Population(grid, results, backend="numpy").compare(hidden_sizes=sizes)
    assert comparison.second == "hidden_sizes=7"
    assert comparison.difference == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ({"data": [1, 2, 3]}, TypeError, "data must be the name of a data set or"),
        ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
        ({"threads": "all"}, TypeError, "threads must be an integer, got 'all'"),
        ({"executor": 4}, TypeError, "executor must be a concurrent.futures.Executor, got 4"),
    ],
)
def test_arguments_of_a_wrong_kind_are_refused(argument, error, message):
    with pytest.raises(error, match=message):
        ma.train_population(
            "two-layer", **{"seeds": 1, "data": "digits", "backend": "numpy", **argument}
        )


def test_an_executor_that_cancels_a_member_does_not_end_the_population_silently():
    class Lost(Executor):
        def submit(self, *call):
            future = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    with pytest.raises(CancelledError):
        ma.train_population(
            "two-layer", seeds=2, data="digits", backend="numpy", executor=Lost(), **SETTINGS
        )


def test_ctrl_c_keeps_the_members_that_have_ended():
    class Interrupting(ThreadPoolExecutor):
        def submit(self, function, member, *arguments):
            if member == 2:
                self.second.result()
                signal.raise_signal(signal.SIGINT)
            self.second = super().submit(function, member, *arguments)
            return self.second

    with Interrupting(1) as executor, pytest.raises(KeyboardInterrupt) as stop:
        ma.train_population(
            "two-layer", seeds=9, data="digits", backend="numpy", executor=executor, **SETTINGS
        )
    population = stop.value.population
    status = [row["status"] for row in population.table]
    assert status == ["done"] * 2 + ["not trained"] * 7
    assert population.summary()[0]["n"] == 2
    assert "2 of 9 members have ended" in str(stop.value)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.posix
def test_ctrl_c_ends_members_of_this_process_after_their_chunks(monkeypatch):
    """The signal arrives while the main thread waits for its members."""

    class Interrupting(get_backend("numpy").__class__):
        name = "interrupting"
        losses = 0

        def loss(self, *arguments):
            Interrupting.losses += 1
            if Interrupting.losses == 50:  # in the second of 30 members, each of 30 steps
                os.kill(os.getpid(), signal.SIGINT)
            return super().loss(*arguments)

    monkeypatch.setattr("backends.registry._registered", {"interrupting": Interrupting})
    with pytest.raises(ma.PopulationInterrupt) as stop:
        ma.train_population(
            "two-layer", seeds=30, data="digits", backend="interrupting", **SETTINGS
        )
    done = [row["status"] for row in stop.value.population.table].count("done")
    assert 1 <= done < 30


def test_an_interrupted_member_ends_early_at_the_same_step(tmp_path):
    given = {"patience": 2, "epochs": 30, "lr": 1e-6, "batch_size": 10, "limit_train": 100}
    settings = make_grid("two-layer", seeds=1, given=given, fixed={"dataset": "digits"}).members[0]
    data = ma.load_dataset("digits")

    def train(stop_after):
        training = MemberTraining(0, settings, get_backend("numpy"), data, on_steps=count)
        training.restore(tmp_path)
        nonlocal steps, running, limit
        steps, running, limit = 0, training, stop_after
        return training.run()

    def count(done):
        nonlocal steps
        steps += done
        if steps >= limit:
            running.interrupt()

    steps, running, limit = 0, None, 0
    whole = train(10**6)
    assert "no improvement in 2 evaluations" in whole.stop_reason
    assert train(whole.steps - 12) is None
    running.save(tmp_path)
    earlier = (tmp_path / "0.json").read_bytes()
    assert train(2) is None
    running.save(tmp_path)
    # The earlier state does not fit the checkpoint, so the member starts from its beginning.
    for state in ((tmp_path / "0.json").read_bytes(), earlier):
        (tmp_path / "0.json").write_bytes(state)
        continued = train(10**6)
        assert (continued.steps, continued.stop_reason) == (whole.steps, whole.stop_reason)
        assert np.array_equal(continued.weights["W1"], whole.weights["W1"])
    assert steps == whole.steps


def test_a_member_that_is_interrupted_in_its_last_step_is_finished():
    given = {"iterations": 3, "batch_size": 10, "limit_train": 100}
    settings = make_grid("two-layer", seeds=1, given=given, fixed={"dataset": "digits"}).members[0]
    backend, data = get_backend("numpy"), ma.load_dataset("digits")

    def interrupt_at_the_end(steps):
        if training.trainer.step == 3:
            training.interrupt()

    training = MemberTraining(0, settings, backend, data, on_steps=interrupt_at_the_end)
    result = training.run()
    assert (result.steps, result.stop_reason) == (3, "")
    assert result.test_accuracy is not None
