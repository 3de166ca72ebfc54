"""The workers: one kind answers, the other writes what was said into memory."""
