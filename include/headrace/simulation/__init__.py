"""A simulated fleet of emergency fuel generators, for demonstrations and tests."""
