"""The procedural world: a painter, captions, measured looks and people with hidden tastes.

A picture shows one of 8 subjects in one of 6 settings, and has 8 continuous looks. Captions name
the content and never a look, so what a person likes about two pictures of one caption is a matter
of looks alone, and can be measured from the pixels.
"""
