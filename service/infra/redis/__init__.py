"""What several processes share and may lose: cache, events, signals, counts."""
