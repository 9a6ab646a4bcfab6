"""Populations: one recipe trained with many seeds and settings, and statistics over them."""

from mnist_accel.populations.population import Population
from mnist_accel.populations.training import PopulationInterrupt, train_population

__all__ = ["Population", "PopulationInterrupt", "train_population"]
