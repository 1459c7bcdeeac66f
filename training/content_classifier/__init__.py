"""Which subject and setting a picture shows: the shipped classifier and its training."""
