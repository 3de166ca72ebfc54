"""Servers for a machine with nothing on it: a Redis, a small model, a memory, and who runs them."""
