"""Alerts: from a sample or a kill to one living message in a chat; one file a rule. They import cards, never commands."""
