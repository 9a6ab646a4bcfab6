"""Sources of the published data sets."""
