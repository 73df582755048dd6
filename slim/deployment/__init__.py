"""Clones of a network over the devices of one machine."""
