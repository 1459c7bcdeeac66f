"""What reports are made of: estimates with their intervals, plots."""
