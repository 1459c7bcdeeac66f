"""Under which names the service answers: a site that points its own name here gets nothing."""

from collections.abc import Collection

_OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Orchestrators and scrapers ask by address, and nothing here is anybody's."""


class Hosts:
    """The names of `Host` that are answered, ports aside; `*.example` is all below `example`."""

    def __init__(self, names: Collection[str]) -> None:
        """`names`: none are all that there are."""
        self._names = frozenset(name for name in names if not name.startswith("*."))
        self._above = tuple(name[1:] for name in names if name.startswith("*."))

    def answers(self, headers: Collection[tuple[bytes, bytes]], path: str) -> bool:
        """Whether a request with these headers is for this service."""
        if not self._names and not self._above:
            return True
        named = [value for name, value in headers if name == b"host"]
        if len(named) == 1:
            host = host_of(named[0].decode("latin-1"))
            if host in self._names or host.endswith(self._above):
                return True
        return path in _OPEN_PATHS


def host_of(authority: str) -> str:
    """The name or address of `Host`, without port, brackets and the root's dot."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].rstrip(".").lower()
