"""Remedies: a finding in, typed steps out; each step previews, checks, applies, verifies, undoes."""
