"""Measurements against the limits of the project: `make bench`."""
