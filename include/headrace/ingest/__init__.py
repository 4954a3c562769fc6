"""Logic of the workers: long-running processes that move single readings."""
