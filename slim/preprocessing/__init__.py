"""From an encoded or a decoded image to the network's input."""
