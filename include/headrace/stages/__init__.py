"""The stages of a window, as functions of a range of windows, the stores and Kafka.

Each stage is idempotent, computes any number of windows at once, and can be run again alone.
"""
