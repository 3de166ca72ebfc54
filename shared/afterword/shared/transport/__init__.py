"""How a command or a script reaches Redis, and how the answer comes back."""
