"""All that is to be proved on a GPU, in one command: `python -m benchmarks.gpu`."""
