"""The rivals, side by side in one world; START HERE is `__main__.py`."""
