"""Routers: what each address takes and gives."""
