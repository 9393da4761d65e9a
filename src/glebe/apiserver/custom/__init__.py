"""Custom kinds: from a definition to what the server serves."""
