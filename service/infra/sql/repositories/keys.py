"""API keys."""

from collections.abc import Collection, Sequence

from sqlalchemy import select, update

from service.core.auth import KeyScope
from service.infra.sql.clock import present
from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import ApiKey


class Keys(Repository):
    """API keys."""

    async def active(self, key_sha256s: Collection[str]) -> dict[str, ApiKey]:
        """Those of these keys that were not revoked, by their hashes."""
        these = ApiKey.key_sha256.in_(key_sha256s)
        rows = await self._session.scalars(select(ApiKey).where(these, ApiKey.revoked_at.is_(None)))
        return {row.key_sha256: row for row in rows}

    async def add(self, tenant: str, name: str, key_sha256: str, scope: KeyScope) -> ApiKey:
        row = ApiKey(tenant=tenant, name=name, key_sha256=key_sha256, scope=scope)
        self._session.add(row)
        await self._session.flush()
        return row

    async def get(self, pk: str) -> ApiKey | None:
        """The key of this id, revoked or not."""
        return await self._session.get(ApiKey, pk)

    async def all(self) -> Sequence[ApiKey]:
        return await self._all(select(ApiKey).order_by(ApiKey.created_at))

    async def revoke(self, pk: str) -> bool:
        """Revoke a key; false when there is no such key in use."""
        statement = update(ApiKey).where(ApiKey.pk == pk, ApiKey.revoked_at.is_(None))
        return bool(await self._changed(statement.values(revoked_at=present())))
