"""What every offline job has: a configuration, a command line, files that appear whole."""
