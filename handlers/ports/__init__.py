"""What a command may ask of the process; one small Protocol a file."""
