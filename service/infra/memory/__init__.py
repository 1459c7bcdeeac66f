"""The same, of one process, in its memory."""
