"""mini's VLM learns to obey words, in the embedding space it has; START HERE is `__main__.py`."""
