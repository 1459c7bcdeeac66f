"""What answers to the quiz foretell: where the embedding lies, and how often taste will please."""
