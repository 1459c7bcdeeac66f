"""What the API, the workers and the commands all do, once: plain functions over the parts."""
