"""mini's vision-language model from nothing; START HERE is `__main__.py`."""
