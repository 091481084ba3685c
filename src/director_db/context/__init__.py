"""Contexts: what is sent back to the model, kept in parts so that a save costs what it changed."""
