"""What the commands `doctor`, `compare` and `gradcheck` compute."""
