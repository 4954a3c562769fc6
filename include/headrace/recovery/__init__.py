"""Audit and replay: counts what happened to readings, and sends readings again."""
