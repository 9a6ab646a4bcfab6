"""How fast is it? Throughput of every backend, and of what a user would pick instead."""
