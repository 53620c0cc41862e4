"""Processes killed at every step of the main path: `make chaos`."""
