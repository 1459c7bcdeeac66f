"""Nobody reaches what is not theirs: every route there is, every kind of stranger."""

from typing import Any

import httpx
import pytest

from tests.api_calls import MARK, annes, calls, code_of, protected
from tests.running_service import Service

pytestmark = pytest.mark.anyio

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
ERASE = "DELETE /users/{user_id}"
CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}


async def test_every_protected_route_wants_a_key_that_is_in_use(service: Service) -> None:
    ids = await annes(service, service.client(), "ann")
    before = await held(service)
    revoked, admin = await service.new_key("default"), await service.new_key("default", "admin")
    for key in (revoked, admin):
        assert (await service.client(key).get("/pairs")).status_code == 200
        gone = await service.client().delete(f"/admin/keys/{await service.id_of_key(key)}")
        assert gone.status_code == 200
    strangers = {
        "nobody": service.bare(),
        "revoked": service.client(revoked),
        "revoked admin": service.client(admin),
        "never made": service.client("ppd_" + "A" * 43),
        "a hash": service.client("0" * 64),
        "empty": service.bare(headers={"Authorization": ""}),
        "no word": service.bare(headers={"Authorization": "Bearer"}),
        "two words": service.bare(headers={"Authorization": f"Bearer {service.key} x"}),
        "bare key": service.bare(headers={"Authorization": service.key}),
        "basic": service.bare(headers={"Authorization": "Basic cHBkOnBwZA=="}),
        "long": service.bare(headers={"Authorization": "Bearer " + "a" * 20_000}),
        "not ascii": service.bare(headers={"Authorization": b"Bearer \xff\xfe"}),  # type: ignore[dict-item]
        "forged session": service.bare(
            headers={"Cookie": "ppd_session=Im1lLTEi.aaaaaa.bbbb", **SAME_ORIGIN}
        ),
    }
    for call in protected(service):
        for who, client in strangers.items():
            answer = await call(client, ids)
            assert answer.status_code == 401, (call.name, who)
            assert code_of(answer) in ("unauthorized", "invalid_api_key")
            assert "Bearer" in answer.headers["www-authenticate"]
    assert await held(service) == before


@pytest.mark.parametrize("scope", ["client", "admin"])
async def test_what_is_another_tenants_is_404_for_its_admins_too(
    service: Service, scope: Any
) -> None:
    ids = await annes(service, service.client(), "ann")
    before = await held(service)
    client = service.client(await service.new_key("other", scope))
    for call in protected(service):
        if call.is_admin:
            continue
        answer = await call(client, ids, headers={"Prefer": "wait=60"})
        if call.is_generic or call.is_new_to_a_tenant:
            assert answer.status_code in (200, 202), (call.name, answer.text)
        else:
            assert answer.status_code == 404, (call.name, answer.text)
            assert code_of(answer).endswith("_not_found")
        assert_silent(answer, ids, call.name)
    assert await held(service) == before


async def test_another_user_of_a_browser_is_404(service: Service) -> None:
    owner, user_id = await service.session()
    ids = await annes(service, owner, user_id)
    base = await service.generate(owner)
    of_base = base["result"]["images"][0]["url"].split("/")[-1]
    stranger, other_id = await service.session()
    assert user_id != other_id
    before = (await owner.get(f"/users/{user_id}/export")).json()
    for theirs in (ids, {**ids, "job_id": base["id"], "image_id": of_base}):
        for call in protected(service):
            answer = await call(stranger, theirs)
            if call.is_admin:
                assert (answer.status_code, code_of(answer)) == (403, "admin_only"), call.name
            elif call.is_generic:
                assert answer.status_code == 200, call.name
            else:
                assert answer.status_code == 404, (call.name, answer.text)
            assert_silent(answer, ids, call.name)
    blend = {"prompt": "a fox", "blend": [{"user_id": user_id, "weight": 1.0}]}
    assert (await stranger.post("/generate", json=blend)).status_code == 404
    assert (await owner.get(f"/users/{user_id}/export")).json() == before


async def test_a_session_does_not_reach_a_tenants_user(service: Service) -> None:
    ids = await annes(service, service.client(), "ann")
    before = await held(service)
    browser, _ = await service.session()
    for call in protected(service):
        answer = await call(browser, ids)
        refused = 403 if call.is_admin else 404
        assert answer.status_code == (200 if call.is_generic else refused), call.name
    assert await held(service) == before


async def test_a_clients_key_opens_no_admin_route(service: Service) -> None:
    client = service.client(await service.new_key("default"))
    ids = await annes(service, client, "ann")
    admin = [call for call in protected(service) if call.is_admin]
    assert len(admin) >= 3
    for call in admin:
        answer = await call(client, ids)
        assert (answer.status_code, code_of(answer)) == (403, "admin_only"), call.name
        unread = await client.request(call.method, answer.request.url, content=b"{")
        assert (unread.status_code, code_of(unread)) == (403, "admin_only"), call.name


async def test_a_sessions_changes_from_another_site_are_refused_everywhere(
    service: Service,
) -> None:
    owner, user_id = await service.session()
    ids = await annes(service, owner, user_id)
    before = (await owner.get(f"/users/{user_id}/export")).json()
    for call in protected(service):
        if call.changes:
            answer = await call(owner, ids, headers=CROSS_SITE)
            assert (answer.status_code, code_of(answer)) == (403, "forbidden_origin"), call.name
    assert (await owner.get(f"/users/{user_id}/export")).json() == before


async def test_the_owner_reaches_all_of_it(service: Service) -> None:
    """Else the refusals above might come of calls that nobody can make."""
    browser, user_id = await service.session()
    for client, owner in ((service.client(), "ann"), (browser, user_id)):
        ids = await annes(service, client, owner)
        for call in sorted(protected(service), key=lambda call: call.name == ERASE):
            if call.is_admin and client is browser:
                continue
            answer = await call(client, ids, headers={"Prefer": "wait=60"})
            assert answer.is_success, (call.name, answer.status_code, answer.text)


async def test_public_routes_answer_everybody_and_name_nobody(service: Service) -> None:
    ids = await annes(service, service.client(), "ann")
    file = "pair-00-a.webp"
    signed = {"file": file, "token": "x"}
    for call in calls(service):
        if call.is_public and call.path not in ("/static", "/images/signed/{token}"):
            answer = await call(service.bare(), signed)
            assert answer.status_code == 200, call.name
            assert_silent(answer, ids, call.name)


async def test_every_post_is_done_once_per_idempotency_key(service: Service) -> None:
    app: Any = service.parts.app.app
    paths = app.openapi()["paths"]
    client = service.client()
    ids = await annes(service, client, "ann")
    posts = [call for call in protected(service) if call.method == "POST"]
    assert len(posts) >= 4
    for i, call in enumerate(posts):
        named = {p["name"] for p in paths[call.path]["post"].get("parameters", [])}
        assert "Idempotency-Key" in named, f"{call.name} needs OnceDep of service/api/idempotency"
        headers = {"Idempotency-Key": f"k-{i}", "Prefer": "wait=60"}
        first = await call(client, ids, headers=headers)
        again = await call(client, ids, headers=headers)
        assert first.is_success, (call.name, first.text)
        assert again.status_code == first.status_code, call.name
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true", call.name
        assert essence(again) == essence(first), call.name
        headers["Content-Type"] = "application/json"
        changed = first.request.content + b" "
        other = await client.post(first.request.url, content=changed, headers=headers)
        wanted = 400 if call.path.startswith("/v1/") else 422
        assert (other.status_code, code_of(other)) == (wanted, "idempotency_key_reused"), call.name


def essence(answer: httpx.Response) -> Any:
    """The answer without what is new each time by design: a key."""
    body = answer.json()
    body.pop("key", None)
    return body


def assert_silent(answer: httpx.Response, ids: dict[str, str], what: str) -> None:
    """The answer holds nothing of Ann's that its caller did not send."""
    sent = str(answer.request.url) + answer.request.content.decode()
    for secret in (MARK, ids["job_id"], ids["image_id"]):
        assert secret in sent or secret not in answer.text, what


async def held(service: Service) -> Any:
    """All that is held about Ann."""
    return (await service.client().get("/users/ann/export")).json()
