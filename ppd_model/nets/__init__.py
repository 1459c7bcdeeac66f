"""The networks and the mathematics of sampling, each by itself."""
