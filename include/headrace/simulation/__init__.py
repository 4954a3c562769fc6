"""A simulated fleet of emergency fuel generators, for trying things out."""
