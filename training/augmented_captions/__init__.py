"""Figure 5: the profile put behind the caption; START HERE is `__main__.py`."""
