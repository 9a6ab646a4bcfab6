"""Measure which backend and thread count trains a network fastest."""
