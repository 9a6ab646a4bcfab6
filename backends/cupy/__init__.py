"""The CuPy backend: CUDA kernels and CUDA graphs on an NVIDIA GPU."""
