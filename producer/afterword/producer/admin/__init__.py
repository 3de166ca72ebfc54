"""What operators do: dead letters, replays, erasures, the account."""
