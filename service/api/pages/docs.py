"""The reference for developers: one page made from the schema, without a line of script."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, select_autoescape
from starlette.responses import FileResponse, HTMLResponse

from service.api.deps import CountedRoute
from service.core.errors import CODES

DESCRIPTION = (
    "Send four choices between pictures, read a profile of the person's taste, and make pictures "
    "in it. Calls carry `Authorization: Bearer KEY`. Bodies are strict JSON; errors are "
    "`application/problem+json` with a stable `code`. Routes under `/admin` are for keys of the "
    "scope admin. Routes under `/v1` speak OpenAI's shapes, errors too: 422 is 400 there."
)

router = APIRouter(include_in_schema=False, route_class=CountedRoute)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Every call with its parameters and its body, and every error code."""
    schema = request.app.openapi()
    environment = Environment(
        loader=PackageLoader("service.api.pages"), autoescape=select_autoescape(), trim_blocks=True
    )
    page = environment.get_template("docs.html").render(
        title=schema["info"]["title"],
        description=DESCRIPTION,
        calls=[
            _call(path, method, call, schema)
            for path, methods in schema["paths"].items()
            for method, call in methods.items()
        ],
        codes=sorted(CODES.items()),
    )
    return HTMLResponse(page)


@router.get("/docs.css")
async def stylesheet() -> FileResponse:
    """How that page looks."""
    return FileResponse(Path(__file__).parent / "templates" / "docs.css", media_type="text/css")


def _call(path: str, method: str, call: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    body = call.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = body.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1]
    return {
        "id": call["operationId"],
        "method": method.upper(),
        "path": path,
        "text": call.get("description", call["summary"]),
        "open": "security" not in call,
        "parameters": [
            {"name": p["name"], "in": p["in"], "text": p.get("description", "")}
            for p in call.get("parameters", [])
        ],
        "fields": _fields(schema["components"]["schemas"].get(name, {}), schema, ""),
    }


def _fields(model: dict[str, Any], schema: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    rows = []
    for name, field in model.get("properties", {}).items():
        choices = [c for c in field.get("anyOf", [field]) if c.get("type") != "null"]
        limits = {k: v for c in choices for k, v in c.items() if k in _LIMITS}
        kind = " or ".join(str(c.get("type", "value")) for c in choices)
        rows.append(
            {
                "name": prefix + name,
                "type": kind,
                "required": name in model.get("required", []),
                "default": field.get("default"),
                "limits": ", ".join(f"{_LIMITS[k]} {v}" for k, v in limits.items()),
                "text": field.get("description", ""),
            }
        )
        for choice in choices:
            inner = choice.get("items", {}).get("$ref", "").rsplit("/", 1)[-1]
            if inner:
                nested = schema["components"]["schemas"][inner]
                rows += _fields(nested, schema, f"{prefix}{name}[].")
    return rows


_LIMITS = {
    "minimum": "from",
    "maximum": "to",
    "exclusiveMinimum": "above",
    "minLength": "from length",
    "maxLength": "to length",
    "minItems": "from items",
    "maxItems": "to items",
    "pattern": "matching",
}
