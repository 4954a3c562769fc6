"""Logic of the workers, the long-running processes that move single readings."""
