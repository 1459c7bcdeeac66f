"""Offline jobs: the procedural world, the pretraining of ``mini``, and preference fine-tuning."""
