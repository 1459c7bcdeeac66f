"""What people's blind choices say of the adapters, for admins."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from service.api.deps import AdminRoute, CallerDep, ServicesDep
from service.core.proof.wins import MOST_EACH, WinsReport

router = APIRouter(prefix="/admin/wins", tags=["admin"], route_class=AdminRoute)


@router.get("")
async def wins(
    caller: CallerDep,
    services: ServicesDep,
    each: Annotated[
        int,
        Query(ge=1, le=MOST_EACH, description="Decided choices of a person for one observation."),
    ] = 1,
) -> WinsReport:
    """Wins of pictures in a person's taste over the base, in blind choices, by adapter version.

    Of the newest share of people who were served another adapter also which of the two is better.
    Intervals hold at all looks together, so it may be asked as often as one likes, and acted upon
    at any time; settle `each` before the first look.
    """
    async with services.database.read(snapshot=True) as store:
        tallies = await store.blind_choices.tallied(each)
    return await asyncio.to_thread(tallies.report)
