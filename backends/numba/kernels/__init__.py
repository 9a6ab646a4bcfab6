"""Compiled CPU kernels: Numba functions and the definitions that they share."""
