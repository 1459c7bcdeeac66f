"""Section 6: which pairs to ask; START HERE is `__main__.py`."""
