"""Load generators, each in a separate process so that its cost is measured separately."""
