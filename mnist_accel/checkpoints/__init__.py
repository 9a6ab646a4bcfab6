"""Reading and writing weights and checkpoints."""
