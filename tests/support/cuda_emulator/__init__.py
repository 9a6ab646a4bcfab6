"""Runs CUDA kernels on the CPU, with real barriers and shuffles between the threads.

g++ compiles a kernel file together with `cuda.h`, which defines the keywords and functions of CUDA
C++ that the kernels use, and `scheduler.cpp`, which runs each CUDA thread as a fiber.
`raw_module.py` has CuPy's classes for loading and launching kernels, `emulated_cupy.py` the other
parts of CuPy that the backend uses; both work on NumPy arrays. docs/gpu.md lists what the emulator
detects and what it cannot detect.
"""
