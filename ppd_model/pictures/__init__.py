"""Picture files: read as they look, whoever brings them, and written with what they are.

Uploads, data sets and judges share one reader, so that training and serving see the same pixels.
Needs no torch and nothing else of ours.
"""
