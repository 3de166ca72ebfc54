"""The command line; it stands above the producer and the workers."""
