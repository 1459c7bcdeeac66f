"""The operator's page. It shows nothing by itself: its script asks with an admin's key."""

from fastapi import APIRouter, Request
from fastapi.templating import Jinja2Templates
from starlette.responses import Response

from service.api.deps import CountedRoute, ServicesDep
from service.core.proof.wins import MOST_EACH

router = APIRouter(include_in_schema=False, route_class=CountedRoute)


@router.get("/wins")
async def wins_page(request: Request, services: ServicesDep) -> Response:
    """Wins over the base; begins no session."""
    templates = Jinja2Templates(directory=services.web_dir / "templates")
    preset = services.capabilities.preset
    context = {"user_id": "", "preset": preset, "page": "wins", "most_each": MOST_EACH}
    return templates.TemplateResponse(request, "wins.html", context)
