"""`make loop`: from people's answers to an adapter that they like better (docs/loop.md)."""
