"""Figure 2: which person's embedding is it? START HERE is `__main__.py`."""
