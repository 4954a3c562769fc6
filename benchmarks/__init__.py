"""Benchmarks compare each result with its goal and with peers measured in the same run."""
