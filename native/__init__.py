"""The stack without Docker: real servers on loopback, for operation and for tests."""
