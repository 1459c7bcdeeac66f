"""Every route of the application, found by walking its routers, and how to call each for real.

A route that is added later is found too. What cannot be filled or told apart fails, with a word on
what to add here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Mount, Route

from service.api.deps import AdminRoute, ProtectedRoute
from service.infra.adapters import keep
from service.infra.pictures.folder_store import FolderImageStore
from tests.running_service import Service

MARK = "zqxj-marker"
"""In Ann's prompt and profile: nobody else may ever read it."""

PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGUlEQVR4nGNscFBgIAUwkaR6VMOohiGl"
    "AQDgzgEAzqv9NgAAAABJRU5ErkJggg=="
)
"""16 x 16 pixels, in base64."""

PUBLIC = {
    "GET /",
    "GET /studio",
    "GET /wins",
    "GET /static",
    "GET /docs",
    "GET /docs.css",
    "GET /openapi.json",
    "GET /metrics",
    "GET /health/live",
    "GET /health/ready",
    "GET /vocabulary",
    "GET /pairs/images/{file}",
    "GET /images/signed/{token}",
}
"""These need no key, and show nothing of anybody (the last one: of whoever signed the address)."""

GENERIC = {"GET /pairs", "GET /v1/models", "GET /v1/models/{model}"}
"""These need a key and are the same for everybody."""

NEW_TO_A_TENANT = {
    "GET /users/{user_id}/quiz",
    "POST /users/{user_id}/preferences",
    "POST /users/{user_id}/likes",
    "PUT /users/{user_id}/profile",
    "PUT /users/{user_id}/contribution",
    "POST /generate",
    "POST /v1/images/generations",
}
"""User ids are a tenant's own: for another tenant these begin a user of its own."""

QUERIES: Mapping[str, str] = {
    "GET /jobs": "user_id={user_id}",
    "DELETE /jobs": "user_id={user_id}",
}
"""What these name in their query; filled as paths are."""

BODIES: Mapping[str, dict[str, Any]] = {
    "POST /users/{user_id}/preferences": {"choices": [{"pair_id": "pair-00", "preferred": 0}]},
    "POST /users/{user_id}/likes": {"liked": [{"image": PICTURE, "caption": "a fox"}] * 4},
    "PATCH /users/{user_id}/preferences": {"since": None},
    "PATCH /users/{user_id}/preferences/{answer_id}": {"preferred": 0},
    "POST /users/{user_id}/shares": {"taste": "{taste}"},
    "PUT /users/{user_id}/profile": {"text": f"I like {MARK}."},
    "PUT /users/{user_id}/contribution": {"contribute": True},
    "POST /generate": {"prompt": "a fox", "user_id": "{user_id}", "steps": 2},
    "POST /v1/images/generations": {"prompt": "a fox", "user": "{user_id}", "steps": 2},
    "POST /reports": {"image_id": "{image_id}", "reason": "It shows me."},
    "POST /admin/adapters/{version}/share": {"share": 0.5},
    "POST /admin/keys": {"name": "another", "tenant": "shop"},
}
"""A body for every route that takes one; {names} are filled as in paths."""


@dataclass(frozen=True)
class Call:
    """A method of a route."""

    name: str
    route: Any

    @property
    def method(self) -> str:
        return self.name.split(" ")[0]

    @property
    def path(self) -> str:
        return self.name.split(" ", 1)[1]

    @property
    def is_public(self) -> bool:
        return self.name in PUBLIC

    @property
    def is_admin(self) -> bool:
        return isinstance(self.route, AdminRoute)

    @property
    def changes(self) -> bool:
        return self.method not in ("GET", "HEAD", "OPTIONS")

    @property
    def is_generic(self) -> bool:
        return self.name in GENERIC

    @property
    def is_new_to_a_tenant(self) -> bool:
        return self.name in NEW_TO_A_TENANT

    async def __call__(
        self, client: httpx.AsyncClient, ids: Mapping[str, str], **options: Any
    ) -> httpx.Response:
        """Call it with these ids in its path and its body."""
        body = BODIES.get(self.name)
        if body is None and getattr(self.route, "body_field", None) is not None:
            pytest.fail(f"{self.name} takes a body: add one to BODIES in tests/api_calls.py")
        if body is not None:
            options["json"] = {name: _filled(value, ids, self) for name, value in body.items()}
        query = QUERIES.get(self.name)
        path = self.path if query is None else f"{self.path}?{query}"
        return await client.request(self.method, _filled(path, ids, self), **options)


def _filled(value: Any, ids: Mapping[str, str], call: Call) -> Any:
    if not isinstance(value, str):
        return value
    for name in re.findall(r"{(\w+)(?::\w+)?}", value):
        if name not in ids:
            pytest.fail(
                f"{call.name} names a {name}: give Ann a real one in `annes` of tests/api_calls.py"
            )
    return re.sub(r"{(\w+)(?::\w+)?}", lambda match: ids[match[1]], value)


def calls(service: Service) -> list[Call]:
    """Every call there is, those outside the schema too. HEAD and OPTIONS of GET are left out."""
    app: Any = service.parts.app.app
    assert isinstance(app, FastAPI)
    found: list[Call] = []
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, Mount):
            found.append(Call(f"GET {route.path}", route))
        elif isinstance(route, Route):
            methods = sorted((route.methods or set()) - {"HEAD", "OPTIONS"})
            found += [Call(f"{method} {context.path}", route) for method in methods]
        else:
            pytest.fail(f"{route!r} is a kind of route that tests/api_calls.py does not know")
    schema = {
        f"{method.upper()} {path}"
        for path, item in app.openapi()["paths"].items()
        for method in item
    }
    assert schema <= {call.name for call in found}
    for call in found:
        _check(call)
    return found


def _check(call: Call) -> None:
    if call.is_public:
        assert not isinstance(call.route, ProtectedRoute), f"{call.name} is not public"
        return
    if not isinstance(call.route, APIRoute) or not isinstance(call.route, ProtectedRoute):
        pytest.fail(
            f"{call.name} lets everybody in: give its router route_class=ProtectedRoute, or write "
            "it into PUBLIC in tests/api_calls.py if it shows nothing of anybody"
        )
    if call.is_admin != call.path.startswith("/admin/"):
        pytest.fail(f"{call.name}: routes under /admin, and no others, have route_class=AdminRoute")
    told = call.is_admin or call.is_generic or call.is_new_to_a_tenant
    named = call.path + str(BODIES.get(call.name, ""))
    if not told and "{image_id}" not in named and "{" not in call.path and call.name not in QUERIES:
        pytest.fail(
            f"{call.name} names nobody's thing: write it into GENERIC (the same for everybody), "
            "NEW_TO_A_TENANT (begins a user of the caller's) or QUERIES in tests/api_calls.py"
        )


def protected(service: Service) -> list[Call]:
    """The calls that want a key or a session, in an order in which each finds what it is about.

    Deletions come after the others, a person's last; what may begin a user, after all of them.
    """
    found = [call for call in calls(service) if not call.is_public]
    assert len(found) >= 16
    return sorted(
        found,
        key=lambda call: (
            call.is_new_to_a_tenant,
            call.method == "DELETE",
            call.name == "DELETE /jobs",
            call.path == "/users/{user_id}",
        ),
    )


async def annes(service: Service, client: httpx.AsyncClient, user_id: str) -> dict[str, str]:
    """A real id for every name that a path may hold: a filled user, a spare key, an adapter."""
    await service.answer(client, user_id)
    text = BODIES["PUT /users/{user_id}/profile"]
    answer = await client.put(f"/users/{user_id}/profile", json=text, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200, answer.text
    further = f"/users/{user_id}/profile?taste=work"
    assert (await client.put(further, json=text, headers={"Prefer": "wait=60"})).status_code == 200
    shared = await client.post(f"/users/{user_id}/shares", json={})
    assert shared.status_code == 201, shared.text
    job = await service.generate(client, user_id=user_id, prompt=MARK)
    image_id = job["result"]["images"][0]["url"].split("/")[-1]
    spare = await service.new_key("default")
    answers = (await client.get(f"/users/{user_id}/preferences")).json()["choices"]
    reported = (await service.generate(client, user_id=user_id, prompt=MARK, seed=8))["result"]
    reported_id = reported["images"][0]["url"].split("/")[-1]
    report = {"image_id": reported_id, "reason": MARK}
    answer = await client.post("/reports", json=report)
    assert answer.status_code == 201, answer.text
    return {
        "user_id": user_id,
        "job_id": job["id"],
        "image_id": image_id,
        "key_id": await service.id_of_key(spare),
        "answer_id": str(answers[0]["id"]),
        "taste": "work",
        "code": shared.json()["code"],
        "model": "mini",
        "report_id": answer.json()["id"],
        "version": await adapter_in_service(service),
    }


async def adapter_in_service(service: Service) -> str:
    """The version of a kept adapter, put into service in place of the shipped one."""
    images = FolderImageStore(service.settings.data_dir / "images")
    of = {"base_model": "fake-model", "encoder_id": "fake-encoder-1"}
    row = await keep(service.database, images, b"weights", **of)
    async with service.database.write() as store:
        assert await store.adapters.activate(row.version)
    return row.version


def code_of(answer: httpx.Response) -> str:
    """The stable code of a refusal, in either shape."""
    body = answer.json()
    return str(body["error"]["code"] if "error" in body else body["code"])
