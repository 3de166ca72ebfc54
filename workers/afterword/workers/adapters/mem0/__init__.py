"""The doors to mem0: its platform and its open-source class."""
