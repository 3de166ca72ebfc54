"""What a worker does beside its jobs, each on a timer."""
