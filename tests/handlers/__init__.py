"""Tests of the commands and their cards."""
