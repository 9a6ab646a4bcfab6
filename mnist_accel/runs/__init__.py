"""A training from settings to run folder."""
