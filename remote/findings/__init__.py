"""Judgements: pure functions, facts in, findings out."""
