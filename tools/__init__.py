"""Checks and generators for developers: the documents' tables, and a check of the compose file."""
