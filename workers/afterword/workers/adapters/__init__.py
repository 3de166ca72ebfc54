"""Adapters: each gives the workers one thing from outside, behind a port."""
