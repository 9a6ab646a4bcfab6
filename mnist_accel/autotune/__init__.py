"""Find the backend and the number of threads that train a network fastest on this machine."""
