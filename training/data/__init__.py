"""Preferences as they are distributed and as they are trained on: rows, splits, shards, batches."""
