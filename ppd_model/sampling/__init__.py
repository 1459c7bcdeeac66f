"""From requests to Stage C latents: rows of one running batch, each at its own time."""
