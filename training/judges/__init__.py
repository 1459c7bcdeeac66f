"""Judges: who says which of two pictures a person would prefer, from four of their choices.

`python -m training.judges` measures a judge on choices whose answer is known. (`training/judge/`
is data: the networks that the world's own measurements need.)
"""
