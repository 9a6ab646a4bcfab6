"""Compiled CPU kernels; this package holds `@njit` functions and what they share, nothing else."""
