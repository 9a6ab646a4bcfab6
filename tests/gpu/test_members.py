"""Members of a population that train in the same launches on a GPU."""

import signal
from contextlib import suppress
from functools import partialmethod
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest

from backends import Backend, ChunkResults
from backends.cupy import workspace
from backends.program import CompiledInference, Program
from benchmarks.gpu.members import measure
from mnist_accel.commands import main
from mnist_accel.data import load_dataset
from mnist_accel.populations import Population, train_population
from mnist_accel.populations.display import PopulationDisplay
from mnist_accel.populations.folder import PopulationFolder
from mnist_accel.populations.grid import make_grid
from mnist_accel.populations.member import MemberResult
from mnist_accel.populations.running import LocalMembers
from mnist_accel.runs.setup import load_run_data, make_trainer
from mnist_accel.training.chunks import MemberChunk, run_together
from mnist_accel.training.trainer import Trainer
from tests.support.closeness import assert_same_bits
from tests.support.cuda_emulator.raw_module import Emulator, ThreadOrder
from tests.support.emulated_backend import EmulatedBackend
from tests.support.every_kernel import examples_of, small_thresholds, trainer_of, trainings
from tests.support.gpu_training import emulated_and_cupy

pytestmark = pytest.mark.emulated

CNN_GRAPH = {"limit_train": 7, "limit_test": 2, "batch_size": 3}
CNN = {"limit_train": 6, "limit_test": 2, "batch_size": 1}
MLP = {"limit_train": 12, "limit_test": 2, "batch_size": 5, "hidden_sizes": [[5]]}
# Model, settings, compute capability of the GPU, and the last kernel of a step or of a chunk.
CASES = {
    "cnn": ("cnn", CNN, "90", "persistent_cnn"),
    "mlp cluster": ("backprop", MLP, "90", "persistent_mlp"),
    "mlp grid": ("backprop", MLP, "80", "persistent_mlp"),
    "graph": ("cnn", CNN_GRAPH, "90", "wgrad_update"),
}


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that sets the GPU that new emulated backends have."""

    def use(**options: Any) -> None:
        made = partialmethod(EmulatedBackend.__init__, **options)
        monkeypatch.setattr(EmulatedBackend, "__init__", made)

    return use


def alone(settings: Any) -> list[Any]:
    """Return the weights of one network, trained alone with the settings of a member."""
    backend = EmulatedBackend(emulator=Emulator(), capability="90")
    data = load_run_data(settings)
    trainer = make_trainer(settings, backend, examples=data.train_count)
    trainer.fit(*data.train, epochs=settings.epochs)
    return list(trainer.model.state_dict().values())


def members_of(model: str, **given: Any) -> LocalMembers:
    """Return prepared members of a population on the emulator."""
    given = {"epochs": 1, **given}
    grid = make_grid(model, seeds=given.pop("seeds"), given=given, fixed={"dataset": "digits"})
    members = LocalMembers(grid, load_dataset("digits"), backend=EmulatedBackend.name, workers=1)
    members.prepare()
    return members


def assert_equal_to_single_trainings(members: LocalMembers, results: list[MemberResult]) -> None:
    for result in results:
        assert result.weights is not None
        settings = members.grid.members[result.member]
        assert_same_bits(list(result.weights.values()), alone(settings))


@pytest.mark.parametrize("order", ThreadOrder)
@pytest.mark.parametrize("case", CASES)
def test_members_equal_the_single_training_in_every_thread_order(
    use: Any, case: str, order: ThreadOrder
) -> None:
    model, settings, capability, kernel = CASES[case]
    emulator = Emulator(order, seed=2)
    use(emulator=emulator, capability=capability)
    members = members_of(model, seeds=2, lr=[0.01, 0.5], validation_split=0.0, **settings)
    results = list(members.train(range(4)))
    # One launch trains all members; the image order of each has a launch of its own.
    orders, launches = map(emulator.launched.count, ("order", kernel))
    if case == "graph":  # a launch per step, and one that loads the kernel before the capture
        assert launches == 3 + 1
    else:
        assert orders == 4 * launches
    assert_equal_to_single_trainings(members, results)


@pytest.mark.parametrize(
    ("model", "settings"), [("cnn", CNN), ("backprop", MLP), ("cnn", CNN_GRAPH)]
)
def test_members_of_different_length_and_schedule_do_not_wait_for_each_other(
    use: Any, model: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "MAX_STEPS_PER_CHUNK", 4)
    use(emulator=Emulator())
    members = members_of(
        model, seeds=2, epochs=[1, 3], schedule=["constant", "cosine"], validation_split=0.0,
        **settings,
    )  # fmt: skip
    results = list(members.train(range(8)))
    assert [result.member for result in results][:4] == [0, 1, 2, 3]  # those of one epoch
    assert_equal_to_single_trainings(members, results)


def test_members_with_held_out_images_train_with_those_of_the_same_seed(use: Any) -> None:
    emulator = Emulator()
    use(emulator=emulator)
    members = members_of("backprop", seeds=2, lr=[0.1, 0.5], validation_split=0.2, **MLP)
    assert_equal_to_single_trainings(members, list(members.train(range(4))))
    assert emulator.launched.count("order") == 2 * emulator.launched.count("persistent_mlp")


def test_members_that_do_not_fit_the_memory_wait(use: Any) -> None:
    use(emulator=Emulator(), memory_bytes=2_000_000)
    members = members_of("backprop", seeds=7, **MLP)
    assert 1 < members.workers < 7
    assert_equal_to_single_trainings(members, list(members.train(range(7))))


@emulated_and_cupy
@pytest.mark.parametrize("model", ["cnn", "backprop", "two-layer"])
def test_members_equal_populations_of_one(backend: Backend, model: str) -> None:
    """The emulator trains few networks; a GPU trains more than one per multiprocessor."""
    options: dict[str, Any] = {"iterations": 3, "batch_size": 1 if model == "cnn" else 4}
    seeds, checked = 300, (0, 1, 150, 299)
    if isinstance(backend, EmulatedBackend):
        options |= {"limit_train": 12} if model == "cnn" else {"hidden_sizes": [[5]]}
        seeds, checked = 3, (0, 1, 2)

    def train(seeds: Any) -> Population:
        return train_population(
            model, seeds=seeds, data="digits", backend=backend.name, epochs=None, limit_test=2,
            validation_split=0.0, **options,
        )  # fmt: skip

    together = train(seeds)
    for seed in checked:
        networks = [together[seed], train([seed])[0]]
        assert_same_bits(*(list(network.state_dict().values()) for network in networks))


def test_members_that_have_ended_keep_no_memory_of_the_device(
    use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation of each member has a graph with arrays of its own."""
    use(emulator=Emulator())
    inferences: WeakSet[CompiledInference] = WeakSet()
    compile_inference = EmulatedBackend.compile_inference

    def compile_and_count(backend: EmulatedBackend, program: Program) -> CompiledInference:
        inference = compile_inference(backend, program)
        inferences.add(inference)
        return inference

    monkeypatch.setattr(EmulatedBackend, "compile_inference", compile_and_count)
    members = members_of("cnn", seeds=6, validation_split=0.0, **CNN)
    alive = [len(inferences) for _ in members.train(range(6))]
    assert len(alive) == 6
    assert max(alive) <= 3  # the local variables of the loops hold the last ones


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy multiplies in place of cuBLAS
def test_a_member_that_diverges_does_not_stop_the_others(use: Any) -> None:
    use(emulator=Emulator())
    members = members_of("cnn", seeds=1, lr=[0.01, 1e30, 0.02], validation_split=0.0, **CNN)
    results = sorted(members.train(range(3)), key=lambda result: result.member)
    assert "training diverged at step" in results[1].error
    assert_equal_to_single_trainings(members, [results[0], results[2]])


def test_interrupted_members_continue_from_their_checkpoints(use: Any, tmp_path: Path) -> None:
    use(emulator=Emulator())
    members = members_of("backprop", seeds=3, epochs=4, **MLP)
    members.on_steps = lambda steps: members.request_stop("test")
    assert not list(members.train(range(3)))
    assert [training.trainer.step for training in members.interrupted] == [1, 1, 1]
    for training in members.interrupted:
        training.save(tmp_path)
    members = members_of("backprop", seeds=3, epochs=4, **MLP)
    members.before = lambda training: training.restore(tmp_path)
    assert_equal_to_single_trainings(members, list(members.train(range(3))))


def test_members_with_different_kernels_form_groups(use: Any) -> None:
    emulator = Emulator()
    use(emulator=emulator)
    members = members_of("backprop", seeds=2, optimizer=["adam", "sgd"], epochs=1,
                         validation_split=0.0, **MLP)  # fmt: skip
    results = list(members.train(range(4)))
    assert_equal_to_single_trainings(members, results)
    assert {"wgrad_update", "persistent_mlp"} <= set(emulator.launched)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(trainings())))
def test_members_equal_the_single_training_with_every_kernel(number: int) -> None:
    """Each member has a seed, a learning rate and a number of steps of its own."""
    training = trainings()[number]
    emulated = EmulatedBackend(Emulator(ThreadOrder.RANDOM, seed=number))

    def trainers(backend: EmulatedBackend) -> list[Trainer]:
        return [trainer_of(backend, training, seed=i, lr=0.01 * (i + 1)) for i in range(3)]

    steps = [3, 1, 5]
    with small_thresholds():
        together = trainers(emulated)
        train_together(together, steps, *examples_of(training))
        for trainer, member, count in zip(
            trainers(EmulatedBackend()), together, steps, strict=True
        ):
            trainer.fit(*examples_of(training), iterations=count)
            got, expected = (t.model.state_dict() | t.optimizer_state for t in (member, trainer))
            assert_same_bits(list(got.values()), list(expected.values()))


def train_together(trainers: list[Trainer], steps: list[int], images: Any, labels: Any) -> None:
    """Train each network for its number of steps, all in the same launches."""
    data, epoch = trainers[0].prepare(images, labels), trainers[0].compiled
    assert epoch is not None
    running = []
    for trainer, last in zip(trainers, steps, strict=True):
        chunks = trainer.chunks_to(last, data)
        running.append((trainer, chunks, next(chunks)))
    while running:
        members = [MemberChunk(trainer.chunks, data, chunk) for trainer, _, chunk in running]
        results = run_together(epoch, data.for_epoch(epoch), members)
        remaining = []
        for (trainer, chunks, _), result in zip(running, results, strict=True):
            assert isinstance(result, ChunkResults)
            with suppress(StopIteration):
                remaining.append((trainer, chunks, chunks.send((result, 1e-6))))
        running = remaining


def test_a_stopped_population_continues_with_the_same_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the settings diverges."""
    arguments = [
        *("population", "cnn", "--seeds", "2", "--lr", "0.01,1e30,0.1", "--epochs", "2"),
        *("--batch-size", "3", "--limit-train", "7", "--limit-test", "2", "--dataset", "digits"),
        *("--validation-split", "0", "--backend", EmulatedBackend.name, "--quiet"),
    ]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    with np.errstate(all="ignore"):  # NumPy multiplies in place of cuBLAS
        assert main([*arguments, "--out", str(whole)]) == 0
        with monkeypatch.context() as patch:
            interrupt = lambda *_: signal.raise_signal(signal.SIGINT)  # noqa: E731
            patch.setattr(PopulationDisplay, "add_steps", interrupt)
            assert main([*arguments, "--out", str(stopped)]) == 130
        assert len(list((stopped / "unfinished").glob("*.json"))) == 6
        assert main(["population", "--resume", str(stopped), "--quiet"]) == 0
    expected, got = (PopulationFolder(path).load() for path in (whole, stopped))
    assert [row["status"] for row in got.table] == [row["status"] for row in expected.table]
    for member in (0, 1, 4, 5):
        networks = [population[member].state_dict().values() for population in (got, expected)]
        assert_same_bits(*map(list, networks))


def test_the_acceptance_run_measures_populations_of_several_sizes() -> None:
    networks = ("backprop", "cnn")
    measured = list(measure(EmulatedBackend.name, networks=networks, members=(1, 3), iterations=2))
    assert [(one.network, one.members) for one in measured] == [
        ("backprop", 1), ("backprop", 3), ("cnn", 1), ("cnn", 3),
    ]  # fmt: skip
    assert [one.ratio for one in measured[::2]] == [1, 1]
    assert str(measured[3]).startswith("| cnn | 3 |")
