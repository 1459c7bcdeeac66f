"""Answers that people contribute, written for training: `exporting.py` first."""
