"""Synthetic users (paper, 5.1): three people, each of whom likes what one reward likes.

`python -m training.synthetic_users` lists the commands; `__main__.py` is where to start reading.
"""
