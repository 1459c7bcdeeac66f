"""Runs jobs: the loop, the handlers, and the one module that touches the model."""
