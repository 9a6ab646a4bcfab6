"""The version of the distribution, read by the build and by `mnist_accel`."""

__version__ = "0.1.0"
