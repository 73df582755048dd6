"""Checkpoints: reading them, their descriptions, and the sources of released weights."""
