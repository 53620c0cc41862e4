"""What can be read from a host: one file a fact."""
