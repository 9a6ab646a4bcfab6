"""Save and load networks, trainings, and weights of older programs."""
