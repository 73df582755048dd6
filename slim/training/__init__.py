"""Training: its graph, its loop, and its start."""
