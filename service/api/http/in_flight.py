"""Which idempotency keys this process is carrying out right now."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.core.errors import ServiceError


def being_carried_out() -> ServiceError:
    """The refusal of a repetition that comes too early."""
    return ServiceError(409, "idempotency_key_in_flight", headers={"Retry-After": "1"})


class InFlight:
    """From the arrival of a key's first request until that has been committed or refused."""

    def __init__(self) -> None:
        self._fingerprints: dict[tuple[str, str], str] = {}

    @contextmanager
    def hold(self, scope: str, key: str, fingerprint: str) -> Iterator[None]:
        """Raise 409 while the same request is being carried out, 422 while another one is."""
        running = self._fingerprints.get((scope, key))
        if running is not None and running != fingerprint:
            raise ServiceError(422, "idempotency_key_reused")
        if running is not None:
            raise being_carried_out()
        self._fingerprints[scope, key] = fingerprint
        try:
            yield
        finally:
            del self._fingerprints[scope, key]
