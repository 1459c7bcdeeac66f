"""Pretraining of mini, part by part, from nothing."""
