"""The checks of the doctor.

A check is a function that yields findings. Each check imports what it needs when it runs, so a
broken package cannot disturb the other checks. Checks download nothing, and change nothing except
Numba's cache.
"""
