"""Sources of the published data sets: folders, the cache, HTTPS mirrors, the package index."""
