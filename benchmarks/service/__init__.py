"""Benchmarks of the service: over HTTP, and of its processes."""
