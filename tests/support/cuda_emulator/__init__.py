"""Runs CUDA kernels on the CPU, thread by thread, with barriers and shuffles that are real.

A kernel file is compiled by g++ together with `cuda.h`, which knows the words of CUDA C++, and with
`scheduler.cpp`, which runs each CUDA thread as a fiber. `cuda_emulator.module` has the classes of
CuPy that load and launch kernels, on NumPy arrays. What this can show and what it cannot is in
docs/gpu.md.
"""
