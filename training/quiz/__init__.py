"""Simulated people answer pairs: which pair is asked next, what is answered, what it tells."""
