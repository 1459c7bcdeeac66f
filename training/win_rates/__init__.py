"""Figure 6: win rates over the base model; START HERE is `__main__.py`."""
