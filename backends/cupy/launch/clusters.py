"""Thread block clusters: the GPUs that have them, and their size."""

MIN_CAPABILITY = 90  # lowest compute capability of a GPU with clusters
BLOCKS = 8  # per cluster: the largest number that every GPU with clusters supports
