"""Certificates of the bundled servers, for clients on other machines."""
