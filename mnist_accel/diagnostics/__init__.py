"""The checks behind `doctor`, `compare` and `gradcheck`."""
