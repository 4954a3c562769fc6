"""Checks of settings and profile entries: each says what it allows."""
