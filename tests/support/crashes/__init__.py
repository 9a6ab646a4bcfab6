"""Stops trainings at each operation that changes the file system, and resumes them."""
