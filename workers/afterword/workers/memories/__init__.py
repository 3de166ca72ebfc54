"""What the queue `memories` consumes: storing turns and erasing users."""
