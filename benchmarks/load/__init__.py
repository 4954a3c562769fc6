"""The load: programs of their own, so that what they cost is told apart."""
