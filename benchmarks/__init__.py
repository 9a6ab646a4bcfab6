"""Benchmarks: the throughput of each backend and of other libraries."""

# Its start handles missing packages and Ctrl-C during the imports of the other modules.
import mnist_accel  # noqa: F401
