"""One process per contender: each measures on command, and waits for the next command idle."""
