"""The Numba backend: NumPy arrays and compiled CPU kernels."""
