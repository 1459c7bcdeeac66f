"""Weights on disk and on the hub: read strictly, written whole."""
