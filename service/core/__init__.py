"""What the service does, in plain Python: no HTTP, no database, no model."""
