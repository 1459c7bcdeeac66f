"""Who comes with an API key. What was looked up is believed for a moment."""

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from service.core.auth import Caller
from service.core.groups import InGroups
from service.infra.secrets import key_sha256
from service.infra.sql.database import Database
from service.infra.sql.tables import ApiKey

_REMEMBERED = 4096
_AT_ONCE = 100


class KeyLookup:
    """Callers by their keys' hashes, each remembered for `believed_s` after it was looked up.

    So a key that is revoked elsewhere, by another replica or on the command line, opens this one
    for that long. What is no key is looked up each time; all who ask at the same moment, when what
    was believed has run out, by one query.
    """

    def __init__(self, database: Database, believed_s: float) -> None:
        self._database = database
        self._believed_s = believed_s
        self._found: OrderedDict[str, tuple[Caller, float]] = OrderedDict()
        self._revocations = 0
        self._asked = InGroups(self._find, _AT_ONCE)

    async def caller(self, key: str) -> Caller | None:
        """Whose key it is; None for what is no key, or was revoked."""
        sha256 = key_sha256(key)
        known = self._found.get(sha256)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        until_s, revocations = time.monotonic() + self._believed_s, self._revocations
        row = await self._asked.ask(sha256)
        if row is None:
            self._found.pop(sha256, None)
            return None
        scope: Any = row.scope
        caller = Caller(row.tenant, scope_of_key=scope, key_pk=row.pk)
        if revocations == self._revocations:  # else it may have been read before one of them
            self._found[sha256] = caller, until_s
            self._found.move_to_end(sha256)
            if len(self._found) > _REMEMBERED:
                self._found.popitem(last=False)
        return caller

    async def _find(self, sha256s: Sequence[str]) -> list[ApiKey | None]:
        async with self._database.read() as store:
            found = await store.keys.active(set(sha256s))
        return [found.get(sha256) for sha256 in sha256s]

    def forget(self) -> None:
        """Look every key up again: one was revoked here."""
        self._revocations += 1
        self._found.clear()
