"""A person's tastes, and codes under which others may use them."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from service.actions.erasure import erase_taste
from service.api.deps import CallerDep, ProtectedRoute, ServicesDep, UserIdDep
from service.api.idempotency import Accepted, OnceDep
from service.api.routes.choices import nobody
from service.api.schemas import (
    ErasedOut,
    ShareIn,
    ShareOut,
    SharesOut,
    TasteOut,
    TastesOut,
)
from service.api.services import Services
from service.core.auth import MAX_TASTES, TASTE, Caller, named
from service.core.choices import profile_state
from service.core.errors import ServiceError
from service.infra.secrets import key_sha256, share_code
from service.infra.sql.store import Store
from service.infra.sql.tables import TasteShare, User, new_id

router = APIRouter(prefix="/users/{user_id}", tags=["tastes"], route_class=ProtectedRoute)

MAX_SHARES = 32
"""So many codes a person has at most."""
_Code = Annotated[str, Path(max_length=64, description="The code, or its share's id.")]


@router.get("/tastes")
async def list_tastes(user_id: UserIdDep, caller: CallerDep, services: ServicesDep) -> TastesOut:
    """The person's tastes. One begins with what is first sent for it under `?taste=NAME`."""
    async with services.database.read() as store:
        user = await store.users.find(caller.tenant, user_id)
        if user is None and not caller.is_session:
            raise nobody(user_id)
        tastes = await store.users.tastes_of(user.pk) if user is not None else []
        results = [await _taste_out(store, taste) for taste in tastes]
    first = TasteOut(
        taste=None, status="collecting", profile_version=None, answers=0, created_at=None
    )
    return TastesOut(results=results or [first], most=MAX_TASTES)


@router.delete("/tastes/{taste}")
async def delete_taste(
    user_id: UserIdDep,
    taste: Annotated[str, Path(pattern=TASTE)],
    caller: CallerDep,
    services: ServicesDep,
) -> ErasedOut:
    """Erase a named taste with its answers, versions, uploads and codes; what is made in it stops.

    Pictures that were made in it stay the person's. The first taste goes with the person.
    """
    name = named(user_id, taste)
    receipt = await erase_taste(services, caller.tenant, name, who=caller.audited_as)
    if receipt is None:
        raise nobody(name)
    return ErasedOut(user_id=user_id, taste=taste, **vars(receipt))


@router.post("/shares", status_code=201)
async def share(
    user_id: UserIdDep,
    body: ShareIn,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
    once: OnceDep,
) -> ShareOut:
    """Make a code with which anybody here makes pictures in this taste, as `taste_code`.

    They see neither answers nor the profile's text, nor whose taste it is. The code follows the
    taste as it changes, until it is revoked or the taste or the person is erased.
    """
    name = named(user_id, body.taste)

    async def work(store: Store) -> Accepted:
        user = await store.users.alone(caller.tenant, name)
        if user is None:
            raise nobody(name)
        if await store.taste_shares.count(user.person_pk) >= MAX_SHARES:
            raise ServiceError(409, "too_many_shares")
        share_id = new_id()
        code = share_code(services.session_secret, share_id)
        await store.taste_shares.add(
            TasteShare(id=share_id, user_pk=user.pk, code_sha256=key_sha256(code))
        )
        return Accepted({"share_id": share_id}, user_pk=user.person_pk)

    share_id = (await once.do(work))["share_id"]
    for made in (await _shares(services, caller, user_id)).results:
        if made.id == share_id:
            return made
    raise ServiceError(404, "share_not_found")  # it was revoked since


@router.get("/shares")
async def list_shares(user_id: UserIdDep, caller: CallerDep, services: ServicesDep) -> SharesOut:
    """The person's codes, oldest first."""
    return await _shares(services, caller, user_id)


@router.delete("/shares/{code}", status_code=204)
async def revoke(
    user_id: UserIdDep, code: _Code, caller: CallerDep, services: ServicesDep
) -> Response:
    """Revoke a code: from now on it opens nothing. What was asked for with it before is made."""
    async with services.database.write() as store:
        user = await store.users.alone(caller.tenant, user_id)
        revoked = user and await store.taste_shares.revoke(user.pk, key_sha256(code), code)
    if not revoked:
        raise ServiceError(404, "share_not_found")
    return Response(status_code=204)


async def _shares(services: Services, caller: Caller, user_id: str) -> SharesOut:
    async with services.database.read() as store:
        user = await store.users.find(caller.tenant, user_id)
        if user is None and not caller.is_session:
            raise nobody(user_id)
        found = await store.taste_shares.of(user.pk) if user is not None else []
    return SharesOut(results=[_share_out(services, *one) for one in found])


def _share_out(services: Services, row: TasteShare, taste: str | None) -> ShareOut:
    """Its code is made again; not where the secret that it was made with is another now."""
    code = share_code(services.session_secret, row.id)
    known = key_sha256(code) == row.code_sha256
    return ShareOut(id=row.id, taste=taste, code=code if known else None, created_at=row.created_at)


async def _taste_out(store: Store, taste: User) -> TasteOut:
    ready, standing = await store.profiles.states(taste.pk)
    return TasteOut(
        taste=taste.taste,
        status=profile_state(standing),
        profile_version=ready.version if ready is not None else None,
        answers=await store.choices.count(taste.pk),
        created_at=taste.created_at,
    )
