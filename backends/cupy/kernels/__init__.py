"""CUDA C++ kernels, and the loader that compiles them when they are first needed."""
