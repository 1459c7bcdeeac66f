"""The image store: bytes of pictures by key, in a folder or in a bucket."""
