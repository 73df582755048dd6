"""How a checkpoint becomes a network: find, describe, read, choose, freeze."""
