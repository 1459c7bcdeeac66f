"""How other data sets of people's preferences are laid out; START HERE is `catalog.py`."""
