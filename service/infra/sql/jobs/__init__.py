"""Jobs: queued, claimed, ended, looked up."""
