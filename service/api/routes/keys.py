"""API keys, for those who run the service. A key is shown once, when it is made."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from service.api.deps import AdminRoute, CallerDep, ServicesDep
from service.api.idempotency import Accepted, OnceDep
from service.api.schemas import KeyIn, KeyMadeOut, KeyOut, KeysOut
from service.core.errors import ServiceError
from service.infra.secrets import key_sha256, new_key
from service.infra.sql.store import Store
from service.infra.sql.tables import ApiKey

router = APIRouter(prefix="/admin/keys", tags=["admin"], route_class=AdminRoute)


@router.post("", status_code=201)
async def make_key(
    body: KeyIn, response: Response, caller: CallerDep, services: ServicesDep, once: OnceDep
) -> KeyMadeOut:
    """Make a key of any tenant. `key` is in this answer only: a repetition shows null."""
    made: list[str] = []

    async def work(store: Store) -> Accepted:
        key = new_key()
        row = await store.keys.add(body.tenant, body.name, key_sha256(key), body.scope)
        made.append(key)
        await store.audit.note(
            caller.audited_as, "key.made", f"key:{row.pk}", body.tenant, scope=body.scope
        )
        return Accepted({"key_id": row.pk})

    accepted = await once.do(work)
    async with services.database.read() as store:
        row = await store.keys.get(accepted["key_id"])
    assert row is not None, "keys are revoked, never deleted"
    return KeyMadeOut(**_shown(row).model_dump(), key=made[0] if made else None)


@router.get("")
async def list_keys(caller: CallerDep, services: ServicesDep) -> KeysOut:
    """Every key of every tenant, oldest first, revoked ones too."""
    async with services.database.read() as store:
        return KeysOut(results=[_shown(row) for row in await store.keys.all()])


@router.delete("/{key_id}")
async def revoke_key(
    key_id: Annotated[str, Path(max_length=64)], caller: CallerDep, services: ServicesDep
) -> KeyOut:
    """Revoke a key: what comes with it is 401 from now on, a second later on other replicas.

    Not the one that asks for it.
    """
    if key_id == caller.key_pk:
        raise ServiceError(409, "own_key")
    async with services.database.write() as store:
        revoked = await store.keys.revoke(key_id)
        row = await store.keys.get(key_id)
        if revoked and row is not None:
            of = f"key:{row.pk}"
            await store.audit.note(caller.audited_as, "key.revoked", of, row.tenant)
    services.keys.forget()
    if not revoked or row is None:
        raise ServiceError(404, "key_not_found")
    return _shown(row)


def _shown(row: ApiKey) -> KeyOut:
    return KeyOut(
        id=row.pk,
        tenant=row.tenant,
        scope=row.scope,  # type: ignore[arg-type]
        name=row.name,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
