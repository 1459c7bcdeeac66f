"""What training reads, computed once; START HERE is `__main__.py`."""
