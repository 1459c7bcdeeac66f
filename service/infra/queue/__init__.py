"""How the queue stands, how jobs come to worker processes, and which of these there are."""
