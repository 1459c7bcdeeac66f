"""The personalised model: Stable Cascade with a user adapter. Knows no HTTP and no database."""
