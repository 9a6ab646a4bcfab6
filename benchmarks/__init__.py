"""Benchmarks: the throughput of each backend and of other libraries."""
