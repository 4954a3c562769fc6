"""Clients of the servers. Errors of third-party clients become ours at this edge."""
