"""SQLite and PostgreSQL: tables, transactions, and every query."""
