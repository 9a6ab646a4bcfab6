"""Tests of the conversion to and from other libraries."""
