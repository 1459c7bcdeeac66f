"""Which adapter is served to whom, and what people's blind choices say of it."""
