"""The stack without Docker: real servers on loopback, for running and for tests."""
