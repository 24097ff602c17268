"""Importers of third-party files: their contents become parts of a base bundle, or a style. No code in them is run."""
