"""A soak: a running service, people and hostile clients at once, and faults meanwhile."""
