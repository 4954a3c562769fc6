"""The logic of the workers, which run for ever and move single readings."""
