"""What the queue `replies` consumes: recall, prompt, model call, reply."""
