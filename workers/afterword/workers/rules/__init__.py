"""Pure decisions of the workers: no network, no clock, no logging."""
