"""Tests of the page on which people draw."""
