"""The fastest backend and number of threads are chosen, and measurements are cached."""

import itertools
import sys

import numpy as np
import pytest

from backends import get_backend
from mnist_accel.autotune import choose, measure
from mnist_accel.autotune.choose import choose_fastest, fastest, format_throughput
from mnist_accel.autotune.measure import NUM_EXAMPLES, Candidate, ThroughputProbe
from mnist_accel.console.phases import Phases
from mnist_accel.recipes.settings import resolve
from mnist_accel.runs.setup import make_trainer

NUMBA_1, NUMBA_2 = Candidate("numba", 1), Candidate("numba", 2)
NUMPY_1, NUMPY_2 = Candidate("numpy", 1), Candidate("numpy", 2)


@pytest.fixture(autouse=True)
def idle_machine(monkeypatch):
    """Pretend that no other program runs."""
    monkeypatch.setattr(measure, "_involuntary_switches", lambda: 0)


@pytest.mark.parametrize(
    ("images_per_s", "winner"),
    [
        ({NUMBA_1: 300.0, NUMBA_2: 400.0, NUMPY_1: 100.0}, NUMBA_2),
        ({NUMBA_1: 395.0, NUMBA_2: 400.0, NUMPY_1: 399.0}, NUMBA_1),
        ({NUMBA_1: 100.0, NUMPY_1: 99.0, NUMPY_2: 200.0}, NUMPY_2),
        ({Candidate("cupy", None): 500.0, NUMBA_2: 499.0}, Candidate("cupy", None)),
    ],
)
def test_fastest_backend_is_chosen_with_the_fewest_close_threads(images_per_s, winner):
    assert fastest({candidate: [value] for candidate, value in images_per_s.items()}) == winner


# Recorded with three busy programs on two cores, except the last row.
@pytest.mark.parametrize(
    ("turns", "winner"),
    [
        # fcnn: one lucky turn of NumPy
        (
            {NUMBA_1: [15091, 15068, 14234], NUMBA_2: [582, 313, 291],
             NUMPY_1: [8728, 7802, 24003], NUMPY_2: [4707, 2852, 1418]},
            NUMBA_1,
        ),
        # lenet: another lucky turn of NumPy
        (
            {NUMBA_1: [833, 1153, 1238], NUMBA_2: [223, 96, 326], NUMPY_1: [153, 4238, 294]},
            NUMBA_1,
        ),
        # two-layer: Numba was disturbed in its first turn or in two of three
        ({NUMBA_1: [363, 423_826, 707_476], NUMPY_1: [102_513, 180_267, 177_668]}, NUMBA_1),
        ({NUMBA_1: [133_368, 970_488, 53_065], NUMPY_1: [163_224, 161_351, 177_908]}, NUMBA_1),
        # two-layer: both threads of Numba waited for each other
        ({NUMBA_1: [896_131, 850_342], NUMBA_2: [355, 299], NUMPY_1: [191_834]}, NUMBA_1),
        # NumPy is clearly faster
        ({NUMBA_1: [100, 98, 97], NUMPY_1: [130, 129, 128]}, NUMPY_1),
    ],
)  # fmt: skip
def test_an_eager_backend_is_chosen_only_if_it_is_clearly_faster(turns, winner):
    assert fastest(turns, eager=["numpy"]) == winner


# Recorded for fcnn with about twelve busy programs on two cores. Numba is the fastest otherwise.
@pytest.mark.parametrize(
    "turns",
    [
        {NUMBA_1: [65343, 18939, 23289], NUMBA_2: [28450, 34426, 36038],
         NUMPY_1: [182_756, 21570, 172_987], NUMPY_2: [80, 103, 70]},
        {NUMBA_1: [28360, 31782, 16480], NUMBA_2: [10928, 16634, 18819],
         NUMPY_1: [14187, 11702, 11697], NUMPY_2: [83383, 82549, 4240]},
        {NUMBA_1: [25893, 31504], NUMBA_2: [28345, 19908],
         NUMPY_1: [12779, 70483], NUMPY_2: [1354, 3671]},
    ],
)  # fmt: skip
def test_on_a_very_busy_machine_the_compiled_backend_is_chosen(turns):
    winner = fastest(turns, eager=["numpy"], margin=choose.CLEARLY_FASTER_IF_BUSY)
    assert winner.backend == "numba"


def test_numpy_must_be_four_times_faster_on_a_busy_machine(measurements, monkeypatch):
    counts = itertools.count(step=10**9)
    measurements.images_per_s[NUMPY_2] = 3.9 * measurements.images_per_s[NUMBA_2]
    assert measurements.choose(seed=1)[0].selection.backend.name == "numpy"
    monkeypatch.setattr(measure, "_involuntary_switches", lambda: next(counts))
    choice, _ = measurements.choose(batch_size=65)
    assert choice.selection.backend.name == "numba"


def test_a_slightly_faster_eager_backend_is_not_chosen():
    assert fastest({NUMBA_1: [100.0], NUMPY_1: [124.0]}, eager=["numpy"]) == NUMBA_1
    assert fastest({NUMBA_1: [100.0], NUMPY_1: [126.0]}, eager=["numpy"]) == NUMPY_1
    assert fastest({NUMPY_1: [100.0], NUMPY_2: [110.0]}, eager=["numpy"]) == NUMPY_2


@pytest.mark.parametrize(
    ("cores", "batch_size", "counts"),
    [(1, 64, [1]), (2, 64, [1, 2]), (6, 64, [1, 2, 4, 6]), (8, 3, [1, 2, 3]), (8, 1, [1])],
)
def test_candidates_are_powers_of_two_and_the_maximum(cores, batch_size, counts, monkeypatch):
    backend = get_backend("numba")
    monkeypatch.setattr(type(backend), "max_threads", property(lambda self: cores))
    assert choose._thread_counts(backend, None, batch_size) == counts
    assert choose._thread_counts(backend, 5, batch_size) == [5]


class FakeMeasurements:
    """Replaces the measurements by known images per second, and counts them."""

    def __init__(self, monkeypatch, images_per_s):
        self.count = 0
        self.probed = []
        self.images_per_s = images_per_s
        monkeypatch.setattr(choose, "_make_probe", self._make_probe)
        monkeypatch.setattr(choose, "measure_candidates", self._measure_candidates)

    def _make_probe(self, settings, backend, *rest):
        self.probed.append(backend.name)

    def _measure_candidates(self, measure, candidates, *, before_turn):
        self.count += 1
        return {candidate: [self.images_per_s[candidate]] for candidate in candidates}

    def choose(self, *, images=None, **given):
        """Return the choice for some settings, and the phases of the run."""
        phases = Phases()
        images = np.eye(784, dtype=np.uint8) if images is None else images
        choice = choose_fastest(
            resolve({"batch_size": 64, **given}),
            images,
            np.zeros(len(images), int),
            make_trainer=lambda settings, backend: pytest.fail("the probes are fakes"),
            phases=phases,
        )
        return choice, phases


@pytest.fixture
def measurements(monkeypatch):
    for name in ("numpy", "numba"):
        backend_class = type(get_backend(name))
        monkeypatch.setattr(backend_class, "max_threads", property(lambda self: 2))
        monkeypatch.setattr(backend_class, "compile_seconds", 0.0)  # as if compiled already
    monkeypatch.setitem(sys.modules, "cupy", None)
    return FakeMeasurements(
        monkeypatch, {NUMBA_1: 250e3, NUMBA_2: 410e3, NUMPY_1: 160_400, NUMPY_2: 155e3}
    )


def test_auto_chooses_the_fastest_and_describes_the_measurements(measurements):
    choice, phases = measurements.choose()
    assert (choice.selection.backend.name, choice.selection.backend.threads) == ("numba", 2)
    assert choice.describe() == (
        "numba, 2 threads (measured: numba 410 k images/s with 2 threads, numpy 160 k with 1; "
        "not cupy: CuPy is not installed)"
    )
    assert list(phases.seconds) == ["setup", "prepare", "trial"]


def test_threads_of_a_given_backend_are_measured(measurements):
    choice, _ = measurements.choose(backend="numpy")
    assert measurements.probed == ["numpy"]
    assert choice.describe() == (
        "numpy, 1 thread (measured: numpy 160 k images/s with 1 thread, 155 k with 2)"
    )


def test_given_threads_apply_to_every_backend(measurements):
    choice, _ = measurements.choose(threads=1)
    assert (choice.selection.backend.name, choice.selection.backend.threads) == ("numba", 1)
    assert "numba 250 k images/s with 1 thread, numpy 160 k with 1;" in choice.describe()


def test_nothing_is_measured_if_there_is_one_candidate(measurements):
    choice, phases = measurements.choose(backend="numpy", threads=2)
    assert choice.describe() == f"numpy, 2 threads (NumPy {np.__version__})"
    measurements.choose(backend="numba", batch_size=1)  # can use only one thread
    assert measurements.count == 0
    assert list(phases.seconds) == ["setup"]


def test_measurements_are_cached(measurements, autotune_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(autotune_folder.parents[1]))
    first, _ = measurements.choose()
    again, phases = measurements.choose()
    assert measurements.count == 1
    assert again.selection.backend.threads == first.selection.backend.threads == 2
    assert again.measurements == first.measurements.replace(
        "measured", f"cached in ~/{autotune_folder.relative_to(autotune_folder.parents[1])}"
    )
    assert list(phases.seconds) == ["setup"]
    for file in autotune_folder.iterdir():  # deletes the cache
        file.unlink()
    measurements.choose()
    assert measurements.count == 2


def test_measurements_on_a_busy_machine_are_not_cached(measurements, autotune_folder, monkeypatch):
    counts = itertools.count(step=10**9)
    monkeypatch.setattr(measure, "_involuntary_switches", lambda: next(counts))
    choice, _ = measurements.choose()
    assert choice.measurements.startswith("measured on a busy machine: numba 410 k")
    assert not autotune_folder.exists()
    measurements.choose()
    assert measurements.count == 2


def test_each_relevant_setting_has_its_own_cache_entry(measurements, autotune_folder):
    bright = np.full((64, 784), 255, np.uint8)
    variants = [
        {}, {"model": "three-layer"}, {"hidden_sizes": (60,)}, {"activation": "tanh"},
        {"batch_size": 128}, {"dtype": "float64"}, {"optimizer": "adam"}, {"momentum": 0.5},
        {"weight_decay": 0.1}, {"threads": 1}, {"backend": "numpy"}, {"images": bright},
    ]  # fmt: skip
    for number, variant in enumerate(variants, start=1):
        measurements.choose(**variant)
        assert measurements.count == number
    for variant in ({}, {"seed": 5}, {"lr": 0.5}, {"epochs": 3}, {"images": bright // 2}):
        measurements.choose(**variant)
    assert measurements.count == len(variants)


def test_another_machine_or_version_is_measured_again(measurements, monkeypatch):
    measurements.choose()
    monkeypatch.setattr(choose, "__version__", "99")
    measurements.choose()
    monkeypatch.setattr("backends.numpy.backend._processor_name", lambda: "Another One")
    measurements.choose()
    monkeypatch.setattr(np, "__version__", "99")
    measurements.choose()
    assert measurements.count == 4


def test_probe_replaces_very_large_batches_by_shuffled_ones(monkeypatch):
    batches = []

    class Spy(ThroughputProbe):
        def __init__(self, trainer, data):
            super().__init__(trainer, data)
            batches.append((trainer.batch_size, trainer.sampling, data.examples))
            assert trainer.optimizer.lr == choose.PROBE_LR

        def measure(self, threads, seconds):
            return 1.0

    monkeypatch.setattr(choose, "ThroughputProbe", Spy)
    images, labels = np.zeros((20_000, 784), np.uint8), np.zeros(20_000, int)
    for batch_size in (0, 10**15):
        settings = resolve({"model": "fcnn", "backend": "numpy", "batch_size": batch_size})
        choose._make_probe(
            settings,
            get_backend("numpy"),
            images[:NUM_EXAMPLES],
            labels[:NUM_EXAMPLES],
            lambda settings, backend: make_trainer(settings, backend, examples=len(labels)),
        )
    assert [(sampling, examples) for _, sampling, examples in batches] == [
        ("shuffle", NUM_EXAMPLES)
    ] * 2


@pytest.mark.parametrize(
    ("pace", "text"),
    [(0.5, "0.5"), (850.4, "850"), (999.9, "1 k"), (4371, "4.37 k"), (31_249, "31.2 k"),
     (410_000, "410 k"), (999_600, "1 M"), (1_234_567, "1.23 M"), (99_990, "100 k")],
)  # fmt: skip
def test_images_per_second_are_printed_with_three_digits(pace, text):
    assert format_throughput(pace) == text


@pytest.mark.parametrize(
    ("compile_s", "given", "backend"),
    [
        (6.0, {"iterations": 100}, "numpy"),  # 6,400 images take 0.04 s
        (6.0, {"iterations": 100_000}, "numba"),  # 6.4 million images take 40 s
        (0.0, {"iterations": 100}, "numba"),
        (6.0, {"iterations": 100, "backend": "numba"}, "numba"),
    ],
)
def test_a_run_that_is_shorter_than_compiling_is_not_compiled(
    measurements, monkeypatch, compile_s, given, backend
):
    numba = type(get_backend("numba"))
    monkeypatch.setattr(numba, "compile_seconds", property(lambda self: compile_s))
    choice, _ = measurements.choose(**given)
    assert choice.selection.backend.name == backend
    if backend == "numpy":
        assert choice.describe().startswith(
            "numpy, 1 thread (a short run: 0.0 s at 160 k images/s; compiling for another backend "
            "takes about 6 s"
        )


def test_the_time_to_compile_counts_only_without_compiled_code(monkeypatch):
    from backends.numba.kernels import epoch

    backend = get_backend("numba")
    for cores, is_empty, seconds in ((1, True, 4.5), (2, True, 3.0), (2, False, 0.0)):
        monkeypatch.setattr(backend, "_max_threads", cores)
        monkeypatch.setattr(epoch.run_steps._cache, "is_empty", lambda value=is_empty: value)
        assert backend.compile_seconds == seconds


def test_the_trial_pauses_before_the_first_turn_and_between_backends(monkeypatch):
    slept = []
    monkeypatch.setattr(choose.time, "sleep", slept.append)
    pause, counts = choose._pauses(), []
    for name, threads in (("numba", 1), ("numba", 2), ("numpy", 1), ("numba", 1)):
        pause(Candidate(name, threads))
        counts.append(len(slept))
    assert counts == [1, 1, 2, 3]
    assert set(slept) == {choose.PAUSE_S}
