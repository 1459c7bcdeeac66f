"""What all requests have in common: errors, limits, idempotency, streams, who may see a picture."""
