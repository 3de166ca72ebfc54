"""How well memory finds what was said: data sets, the probe, and how they are measured."""
