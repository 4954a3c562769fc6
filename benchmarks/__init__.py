"""Benchmarks: each result is compared with its goal and with peers measured in the same run."""
