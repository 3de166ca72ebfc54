"""What the queue `memories` consumes: turns, erasures, and requests about memories."""
