"""Code that every other package may use."""
