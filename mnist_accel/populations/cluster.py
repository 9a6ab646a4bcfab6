"""Trains members on the workers of a Dask cluster."""

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

from mnist_accel.data import Dataset
from mnist_accel.errors import UsageError
from mnist_accel.populations.grid import Grid
from mnist_accel.populations.running import ExecutorMembers
from mnist_accel.util.optional_packages import missing

_TIMEOUT = "10s"  # to reach the scheduler


@contextmanager
def members_on_cluster(
    address: str, grid: Grid, backend: str, dataset: Dataset
) -> Iterator[ExecutorMembers]:
    """Connect to a Dask scheduler, and copy the data set to each worker once; a context manager.

    It yields the object that trains members on the workers.

    Args:
        address: address of the scheduler, such as "tcp://10.0.0.1:8786".
        grid: the settings of the members.
        backend: name of the backend; it must be able to run on the workers.
        dataset: the data set.

    Raises:
        MissingPackageError: Dask is not installed.
        UsageError: the scheduler cannot be reached or has no workers, or
            the scheduler or the workers are lost during the block.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise missing("--scheduler", "distributed", extra="cluster", error=error) from error
    try:
        client = Client(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise UsageError(f"the Dask scheduler at {address} cannot be reached: {reason}") from error
    with client:
        workers = client.scheduler_info()["workers"]
        if not workers:
            raise UsageError(f"the Dask scheduler at {address} has no workers; start some first")
        try:
            data = client.scatter(dataset, broadcast=True)
            executor = client.get_executor(pure=False)
            yield ExecutorMembers(executor, grid, backend=backend, data=data, workers=len(workers))
        except (KilledWorker, CancelledError) as error:
            raise UsageError(
                f"the Dask scheduler at {address} or too many of its workers were lost "
                f"({type(error).__name__}); the members that have ended are saved; start the "
                "cluster again and continue with --resume"
            ) from error
