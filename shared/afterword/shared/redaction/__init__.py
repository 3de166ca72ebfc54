"""Secrets in what users write: found by a redactor, and kept out of memory as a tenant wants."""
