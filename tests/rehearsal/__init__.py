"""`make rehearse`: docs/reproduce.md run to its last command, on tiny weights and made-up data."""
