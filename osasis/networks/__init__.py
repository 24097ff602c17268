"""The networks: definitions and their configurations."""
