"""The whole path measured on unseen people; START HERE is `__main__.py`."""
