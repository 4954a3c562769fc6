"""Test support: real servers on free ports, installations that use them, and fakes."""
