"""The two pages for people. Each gives the browser a session that owns one user."""

from fastapi import APIRouter, Request
from fastapi.templating import Jinja2Templates
from starlette.responses import Response

from service.api.deps import (
    ServicesDep,
    StrictRoute,
    new_session_user,
    session_user,
    start_session,
)
from service.api.http.rates import count_caller, count_stranger
from service.api.services import Services
from service.core.auth import BROWSER_TENANT, Caller

router = APIRouter(include_in_schema=False, route_class=StrictRoute)


@router.get("/")
async def quiz_page(request: Request, services: ServicesDep) -> Response:
    """The quiz."""
    return await _page(request, services, "index.html", "quiz")


@router.get("/studio")
async def studio_page(request: Request, services: ServicesDep) -> Response:
    """The studio."""
    return await _page(request, services, "studio.html", "studio")


async def _page(request: Request, services: Services, template: str, page: str) -> Response:
    """Render a template; start a session if there is none. `example` is a prompt that is known."""
    known = session_user(request, services)
    if known is None:
        await count_stranger(request, services.rates)
    else:
        await count_caller(request, services.rates, Caller(BROWSER_TENANT, known))
        async with services.database.read() as store:
            known = None if await store.users.session_ended(known) else known
    user_id = known or new_session_user()
    templates = Jinja2Templates(directory=services.web_dir / "templates")
    context = {
        "user_id": user_id,
        "preset": services.capabilities.preset,
        "page": page,
        "example": services.pool.vocabulary["suggestions"][0],
    }
    response = templates.TemplateResponse(request, template, context)
    if known is None:
        start_session(request, response, services, user_id)
    return response
