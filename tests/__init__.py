"""Tests of all packages; their processes sleep while they wait for their threads.

By default, threads of PyTorch and OpenBLAS compute in a loop while they wait, and take the cores
from the other processes of pytest-xdist. The variables must be set before these libraries load.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
