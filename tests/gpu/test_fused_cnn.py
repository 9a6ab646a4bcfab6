"""Steps of two convolutions and linear layers in one launch by thread block clusters."""

from typing import Any

import pytest

from backends import Ties
from backends.cupy import loader
from backends.cupy.plan import plan_for
from benchmarks.gpu.bench_kernels import fused_cnn as benchmark
from benchmarks.gpu.bench_kernels.gpu import Gpu
from mnist_accel import nn
from mnist_accel.data import Dataset
from mnist_accel.nn import layers, losses
from mnist_accel.nn.inputs import Pixels
from mnist_accel.nn.network import Network
from tests.support.cuda_emulator.emulated_cupy import EmulatedCupy
from tests.support.cuda_emulator.raw_module import EmulationError, Emulator, ThreadOrder
from tests.support.emulated_backend import EmulatedBackend
from tests.support.gpu_training import assert_few_steps_match_eager, centers, twin_networks

pytestmark = pytest.mark.emulated
L = layers

# ------------------------------------------------------------------------------- naive kernels

# Image, convolutions, and linear layers before the last.
SMALL = (
    # 2 of 8 blocks have no column of the first linear layer.
    (1, 12, 11),
    [L.Conv2d(2, 3), L.Tanh(), L.MaxPool2d(), L.Conv2d(4, 2), L.Sigmoid(), L.MaxPool2d()],
    [L.Linear(17), L.Sigmoid()],
)
PADDED = (
    (2, 10, 9),
    [
        *(L.Conv2d(6, 2, padding=1), L.Sigmoid(), L.MaxPool2d()),
        *(L.Conv2d(8, 3, padding=1, bias=False), L.Tanh()),
        L.MaxPool2d(),
    ],
    [L.Linear(9), L.Tanh(), L.Linear(33, bias=False), L.Sigmoid()],
)
# 16 lanes divide 20 filters.
LARGE_FILTERS = (
    (1, 13, 10),
    [
        *(L.Conv2d(4, 5, padding=2), L.Tanh(), L.MaxPool2d()),
        *(L.Conv2d(20, 4, padding=2), L.Tanh(), L.MaxPool2d()),
    ],
    [L.Linear(128), L.Sigmoid(), L.Linear(5), L.Tanh()],
)
SOFTMAX, BINARY, QUADRATIC = (
    losses.SoftmaxCrossEntropy(),
    losses.BinaryCrossEntropy(),
    losses.Quadratic(),
)


def error_of(order: ThreadOrder, sizes: Any, dtype: str, loss: losses.Loss) -> tuple[float, str]:
    """Compare with the naive kernels; the second cluster has two images."""
    shape, convolutions, linear_layers = sizes
    gpu = Gpu(EmulatedCupy(Emulator(order, seed=3)), dtype)
    model = Network(
        [*convolutions, L.Flatten(), *linear_layers, L.Linear(10)],
        loss,
        input=Pixels(shape, shift=-0.5),
        backend="numpy",
        dtype=dtype,
    )
    return benchmark.step(gpu, model, 6).largest_error(gpu)


@pytest.mark.parametrize("order", ThreadOrder)
@pytest.mark.parametrize(
    ("sizes", "dtype", "loss"),
    [
        pytest.param(SMALL, "float64", BINARY, id="two linear layers"),
        pytest.param(PADDED, "float32", SOFTMAX, id="padding"),
        pytest.param(LARGE_FILTERS, "float32", QUADRATIC, id="large filters"),
    ],
)
def test_results_equal_those_of_the_naive_kernels(
    order: ThreadOrder, sizes: Any, dtype: str, loss: losses.Loss
) -> None:
    error, name = error_of(order, sizes, dtype, loss)
    assert error <= 1, f"{name} differs by {error:.3g} tolerances"


# ------------------------------------------------------------------------------------- training


def small_network(
    backend: EmulatedBackend,
    filters: tuple[int, int] = (2, 4),
    *,
    linear: int = 2,
    ties: Ties = "first",
    dtype: str = "float64",
) -> tuple[Network, Network]:
    first, second = filters
    stack = [L.Conv2d(first, 3, uniform=True), L.ReLU(), L.MaxPool2d(ties=ties)]
    stack += [L.Conv2d(second, 2), L.ReLU(), L.MaxPool2d(), L.Flatten()]
    for _ in range(linear - 1):
        stack += [L.Linear(6), L.ReLU()]
    return twin_networks([*stack, L.Linear(10)], (1, 12, 12), backend, dtype=dtype)


@pytest.mark.parametrize("order", ThreadOrder)
def test_training_matches_eager_training_in_every_thread_order(
    mnist: Dataset, order: ThreadOrder
) -> None:
    """Two clusters; in the last batch, the second one has no images."""
    backend = EmulatedBackend(Emulator(order, seed=7))
    data = centers(mnist, 11, side=12)
    models = small_network(backend)
    assert_few_steps_match_eager(models, data, nn.Adam(), batch_size=5, steps=6)
    launched = set(backend.emulator.launched) - {"gather_batch", "update", "loss"}
    assert "fused_cnn" in launched
    assert "fused_classifier" not in launched


# --------------------------------------------------------------------------------- planted errors

WAIT = "  __cluster_barrier_wait();\n"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        pytest.param(f"{WAIT}  if (place.has", "  if (place.has", id="gradients are received"),
        pytest.param("  mbarrier_wait(shared.conv_sums", "  //", id="sums are received"),
        pytest.param("  mbarrier_init_fence();", "", id="initialization is released"),
        pytest.param(f"{WAIT}  // Other", "  // Other", id="inputs are received"),
        pytest.param(
            "  __cluster_barrier_wait();  // all", "  // all", id="all blocks have started"
        ),
        pytest.param("__syncthreads();  // the maps", "// the maps", id="sums are read"),
        pytest.param("shared.stage.dx[place.rank]", "shared.stage.dx[0]", id="same place"),
    ],
)
def test_errors_in_the_exchange_are_detected(
    right: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = loader.source
    assert source("fused_cnn").count(right) == 1
    monkeypatch.setattr(loader, "source", lambda file: source(file).replace(right, wrong))

    def is_right(order: ThreadOrder) -> bool:
        try:
            return error_of(order, SMALL, "float64", BINARY)[0] <= 1
        except EmulationError:
            return False

    assert not all(map(is_right, ThreadOrder))


# -------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("capability", "batch_size", "changes", "expected"),
    [
        (90, 128, {}, True),
        (120, 64, {"linear": 3}, True),
        (89, 64, {}, False),  # no clusters
        (90, 129, {}, False),  # other kernels read each weight for several images
        (90, 64, {"ties": "all"}, False),
        (90, 64, {"linear": 1}, False),
        (90, 64, {"linear": 4}, False),
        (90, 64, {"filters": (3, 4)}, False),  # two blocks divide the filters
        (90, 64, {"filters": (2, 6)}, False),
        (90, 64, {"filters": (2, 128)}, True),
        (90, 64, {"filters": (2, 132)}, False),  # more inputs of a linear layer than threads
        (90, 64, {"filters": (2, 128), "dtype": "float64"}, False),  # too large for shared memory
    ],
)
def test_clusters_compute_networks_that_fit(
    capability: int, batch_size: int, changes: dict[str, Any], *, expected: bool
) -> None:
    network, _ = small_network(EmulatedBackend(), **{"dtype": "float32", **changes})
    plan = plan_for(network.training_program(nn.SGD()), capability=capability)
    assert (plan.fused_cnn(batch_size) is not None) == expected
