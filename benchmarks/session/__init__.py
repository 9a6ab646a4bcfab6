"""How a run proceeds: its settings, its process, its pytest hooks and its progress display."""
