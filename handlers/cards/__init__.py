"""What commands and alerts both show: a plan, a kill, a host."""
