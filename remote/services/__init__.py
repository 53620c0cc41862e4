"""Kinds of programs: one file each says what a command line and a log line mean."""
