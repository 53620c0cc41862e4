"""Reach a host: over SSH (asyncssh, only here) or this machine."""
