"""The checks of the doctor.

A check is a function that yields findings. It imports what it needs when it runs, so that a broken
package affects no other check. Checks download nothing, and change nothing except Numba's cache.
"""
