"""The recipes: networks and their training settings."""
