"""Modules that every other package may use."""
