"""Test support: real servers on free ports, and the installations that use them."""
