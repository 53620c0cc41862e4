"""Strict stand-ins for the chat platforms, spoken to over real sockets by the real client libraries."""
