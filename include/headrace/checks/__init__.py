"""Checks of settings and profile entries. Each check describes what it allows."""
