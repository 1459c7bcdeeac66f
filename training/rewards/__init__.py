"""Rewards: what a synthetic user likes (paper, 5.1), as numbers that follow from picture and words.

For published presets these are public scorers, read from local files (`published.py`); for the
world they are mini's own text-picture alignment and two measured looks (`world.py`). `catalog.py`
makes rewards by name.
"""
