"""The operations of a backend, composed of the Python array API standard only.

`backends.base.Backend` inherits all of them. A backend overrides those that it can compute faster,
and returns `super().op(...)` for arguments that the faster form does not support.
"""
