"""Who calls, and how people and their tastes are named."""

import re
from dataclasses import dataclass
from typing import Literal

from service.core.errors import invalid

BROWSER_TENANT = "browser"
"""The tenant of all browser sessions; no API key can be made for it."""

USER_ID = r"^([A-Za-z0-9_-]|[A-Za-z0-9_-][A-Za-z0-9._-]|\.[A-Za-z0-9_-]|[A-Za-z0-9._-]{3,128})$"
"""1 to 128 characters; neither . nor .., which clients take out of a path."""
TASTE = r"^([A-Za-z0-9_-]|[A-Za-z0-9_-][A-Za-z0-9._-]|\.[A-Za-z0-9_-]|[A-Za-z0-9._-]{3,64})$"
"""A taste's name: as a user's, to 64 characters."""
MAX_TASTES = 16
"""So many named tastes a person has at most, beside the first, which has no name."""
TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")


LONGEST_NAME = 128
"""Of a person and a taste together, with what stands between. The column stays as it was: at
another type, code of the version before that still runs would fail (PostgreSQL's cached plans)."""


def named(user_id: str, taste: str | None) -> str:
    """Under which name a taste of this person is kept: the first one under the person's own.

    No client can send the others: a user id has no colon. Raises 422 for names that are too long
    together.
    """
    name = user_id if taste is None else f"{user_id}:{taste}"
    if len(name) > LONGEST_NAME:
        most = LONGEST_NAME - 1 - len(user_id)
        raise invalid("/taste", f"beside this user id it has {max(most, 0)} characters at most")
    return name


def person_of(name: str) -> str:
    """The user id of whose taste this is."""
    return name.partition(":")[0]


def taste_of(name: str) -> str | None:
    """The taste's own name; None for a person's first."""
    return name.partition(":")[2] or None


KeyScope = Literal["client", "admin"]
"""A client's key reaches its tenant's people, jobs and pictures, and nothing else.

An admin's key reaches the same of its own tenant, and besides what stands under /admin, which
concerns the whole service: the keys of every tenant, what is being served, and how it is run. It
does not open another tenant's people.
"""


@dataclass(frozen=True)
class Caller:
    """A tenant's key, or a browser session, which owns exactly one user."""

    tenant: str
    own_user_id: str | None = None
    scope_of_key: KeyScope = "client"
    key_pk: str | None = None
    lane: str | None = None
    """Of a session its address, as a hash: sessions cost nothing, and share by address."""

    @property
    def is_session(self) -> bool:
        """Whether this is a browser session."""
        return self.own_user_id is not None

    @property
    def is_admin(self) -> bool:
        """Whether the routes under /admin are open to the caller; no session's is one."""
        return self.scope_of_key == "admin"

    @property
    def scope(self) -> str:
        """Under this name the caller's idempotency keys are kept."""
        return f"{self.tenant}/{self.own_user_id}" if self.own_user_id else self.tenant

    @property
    def audited_as(self) -> str:
        """Who this is in the audit record, which names no person."""
        return f"key:{self.key_pk}" if self.key_pk is not None else "session"

    def may_use(self, user_id: str) -> bool:
        """Whether the caller may act for this user of its tenant."""
        return self.own_user_id is None or self.own_user_id == user_id
