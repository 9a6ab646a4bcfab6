"""Launchers of the CUDA kernels, one file per kernel family."""
