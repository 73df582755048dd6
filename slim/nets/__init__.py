"""The networks and the factory that builds them by name."""
