"""Hooks: what may ask, what it costs, what is told."""
